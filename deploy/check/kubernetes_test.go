package check

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/intstr"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// cluster is what a set-up consists of.
type cluster struct {
	workloads map[string]workload
	services  []*corev1.Service
	policies  []*networkingv1.NetworkPolicy
	budgets   []*policyv1.PodDisruptionBudget
	scalers   []*autoscalingv2.HorizontalPodAutoscaler
	variables map[string]map[string]string // of a ConfigMap, by its name
	claims    map[string]bool
}

// workload is a Deployment or a StatefulSet.
type workload struct {
	kind     string
	replicas *int32
	selector *metav1.LabelSelector
	pod      corev1.PodTemplateSpec
}

// build makes a set-up as kubectl does, and reads each object strictly: a field
// that Kubernetes does not know, or a value of another type, is an error.
func build(t *testing.T, name string) *cluster {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "../kubernetes/"+name)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, autoscalingv2.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	c := &cluster{workloads: map[string]workload{}, variables: map[string]map[string]string{}, claims: map[string]bool{}}
	for _, r := range made.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, _, err := strict.Decode(text, nil, nil)
		if err != nil {
			t.Fatalf("%s %s: %v", r.GetKind(), r.GetName(), err)
		}
		if r.GetKind() != "Namespace" && r.GetNamespace() != "postroom" {
			t.Errorf("%s %s is in the namespace %q", r.GetKind(), r.GetName(), r.GetNamespace())
		}
		switch o := object.(type) {
		case *appsv1.Deployment:
			c.workloads[o.Name] = workload{r.GetKind(), o.Spec.Replicas, o.Spec.Selector, o.Spec.Template}
		case *appsv1.StatefulSet:
			c.workloads[o.Name] = workload{r.GetKind(), o.Spec.Replicas, o.Spec.Selector, o.Spec.Template}
			for _, claim := range o.Spec.VolumeClaimTemplates {
				c.claims[claim.Name] = true
			}
		case *corev1.Service:
			c.services = append(c.services, o)
		case *corev1.PersistentVolumeClaim:
			c.claims[o.Name] = true
		case *corev1.ConfigMap:
			c.variables[o.Name] = o.Data
		case *networkingv1.NetworkPolicy:
			c.policies = append(c.policies, o)
		case *policyv1.PodDisruptionBudget:
			c.budgets = append(c.budgets, o)
		case *autoscalingv2.HorizontalPodAutoscaler:
			c.scalers = append(c.scalers, o)
		case *corev1.Namespace:
			if o.Labels[psa.EnforceLevelLabel] != string(psa.LevelRestricted) {
				t.Errorf("the namespace %s takes any pod", o.Name)
			}
		default:
			t.Errorf("nobody looks at %s %s", r.GetKind(), r.GetName())
		}
	}
	return c
}

// selected are the workloads whose pods a selector finds.
func (c *cluster) selected(t *testing.T, s *metav1.LabelSelector) []string {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range slices.Sorted(maps.Keys(c.workloads)) {
		if selector.Matches(labels.Set(c.workloads[name].pod.Labels)) {
			found = append(found, name)
		}
	}
	return found
}

// hasPort says whether a workload's pods have the port, a name or a number.
func (w workload) hasPort(port intstr.IntOrString) bool {
	for _, c := range w.pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == port.String() || fmt.Sprint(p.ContainerPort) == port.String() {
				return true
			}
		}
	}
	return false
}

var ours = regexp.MustCompile(`^postroom/(apiserver|queuerunner):(.+)$`)

func TestKubernetesTakesItsFiles(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{"single": {"postroom"}, "scaled": {"apiserver", "queuerunner", "sqld"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := build(t, name)
			if got := slices.Sorted(maps.Keys(c.workloads)); !slices.Equal(got, want) {
				t.Fatalf("it runs %v, want %v", got, want)
			}
			for name, w := range c.workloads {
				c.check(t, name, w)
			}
			c.checkNetwork(t)
			for _, b := range c.budgets {
				if found := c.selected(t, b.Spec.Selector); len(found) != 1 || found[0] != b.Name {
					t.Errorf("the budget %s is for %v", b.Name, found)
				}
			}
			for _, h := range c.scalers {
				target := h.Spec.ScaleTargetRef
				if w := c.workloads[target.Name]; w.kind != target.Kind || w.replicas != nil && *w.replicas != 1 {
					t.Errorf("%s scales %s %s, whose file says how many there are", h.Name, target.Kind, target.Name)
				}
			}
			for name, w := range c.workloads {
				several := w.replicas == nil || *w.replicas > 1
				scaled := slices.ContainsFunc(c.scalers, func(h *autoscalingv2.HorizontalPodAutoscaler) bool { return h.Spec.ScaleTargetRef.Name == name })
				kept := slices.ContainsFunc(c.budgets, func(b *policyv1.PodDisruptionBudget) bool { return b.Name == name })
				if (several || scaled) != kept {
					t.Errorf("%s: several %t, scaled %t, but a disruption budget %t", name, several, scaled, kept)
				}
			}
		})
	}
}

// check holds one workload against what its programs are.
func (c *cluster) check(t *testing.T, name string, w workload) {
	t.Helper()
	if found := c.selected(t, w.selector); !slices.Equal(found, []string{name}) {
		t.Errorf("%s selects the pods of %v", name, found)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range evaluator.EvaluatePod(psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}, &w.pod.ObjectMeta, &w.pod.Spec) {
		if !result.Allowed {
			t.Errorf("%s may do more than it needs: %s (%s)", name, result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	spec := w.pod.Spec
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Errorf("%s is given a token of the cluster's API", name)
	}
	volumes := maps.Clone(c.claims)
	for _, v := range spec.Volumes {
		volumes[v.Name] = v.PersistentVolumeClaim == nil || c.claims[v.PersistentVolumeClaim.ClaimName]
	}
	for _, container := range spec.Containers {
		if s := container.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
			t.Errorf("%s: the root of %s can be written", name, container.Name)
		}
		if _, version, found := strings.Cut(container.Image, ":"); !found || version == "latest" {
			t.Errorf("%s runs any version of %s", name, container.Image)
		}
		r := container.Resources
		if r.Requests.Cpu().IsZero() || r.Requests.Memory().IsZero() || r.Limits.Memory().IsZero() || !r.Limits.Cpu().IsZero() {
			t.Errorf("%s: %s asks for %v and is limited to %v", name, container.Name, r.Requests, r.Limits)
		}
		for _, m := range container.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("%s: %s mounts %s, which is not there", name, container.Name, m.Name)
			}
		}
		if container.StartupProbe == nil || container.ReadinessProbe == nil {
			t.Errorf("%s: nobody asks %s how it is", name, container.Name)
		}
		if m := ours.FindStringSubmatch(container.Image); m != nil {
			c.checkService(t, m[1], container, time.Duration(*spec.TerminationGracePeriodSeconds)*time.Second)
		}
	}
}

// checkService holds a container of ours against the configuration that its
// variables make.
func (c *cluster) checkService(t *testing.T, program string, container corev1.Container, grace time.Duration) {
	t.Helper()
	cfg := load(t, program, c.environment(t, program, container))
	if len(cfg.API.Accepted()) == 0 {
		t.Errorf("%s gets no token", program)
	}
	listens, needs := serving(cfg, program)
	if container.Lifecycle != nil {
		needs += time.Duration(container.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	}
	if grace <= needs {
		t.Errorf("%s may be killed after %v, but takes up to %v to stop", program, grace, needs)
	}
	if len(container.Ports) != 1 || fmt.Sprintf("0.0.0.0:%d", container.Ports[0].ContainerPort) != listens {
		t.Errorf("%s listens on %s, its ports are %v", program, listens, container.Ports)
		return
	}
	for what, probe := range map[string]*corev1.Probe{"/livez": container.LivenessProbe, "/readyz": container.ReadinessProbe, "/livez at the start": container.StartupProbe} {
		want, _, _ := strings.Cut(what, " ")
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != want || probe.HTTPGet.Port.String() != container.Ports[0].Name {
			t.Errorf("%s is asked for %s by %v", program, what, probe)
		}
	}
}

// environment is what the program sees: variables of the image, those of the
// ConfigMap, and a Secret with the token. Each is one that it reads.
func (c *cluster) environment(t *testing.T, program string, container corev1.Container) map[string]string {
	t.Helper()
	env := imageEnvironment(t, program)
	for _, from := range container.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			data := c.variables[from.ConfigMapRef.Name]
			if data == nil {
				t.Errorf("%s: there is no ConfigMap %s", program, from.ConfigMapRef.Name)
			}
			maps.Copy(env, data)
		case from.SecretRef != nil:
			env["API_TOKEN"] = "of-the-test"
		}
	}
	for _, e := range container.Env {
		env[e.Name] = e.Value
	}
	checkVariables(t, program, slices.Collect(maps.Keys(env)))
	return env
}

// checkNetwork sees to it that nothing is open that nobody named, and that
// what is named is there.
func (c *cluster) checkNetwork(t *testing.T) {
	t.Helper()
	closed := false
	for _, p := range c.policies {
		found := c.selected(t, &p.Spec.PodSelector)
		if len(found) == 0 {
			t.Errorf("the policy %s is for nobody", p.Name)
		}
		if len(found) == len(c.workloads) && len(p.Spec.Ingress)+len(p.Spec.Egress) == 0 && len(p.Spec.PolicyTypes) == 2 {
			closed = true
		}
		for _, rule := range p.Spec.Ingress {
			if len(rule.From) == 0 || len(rule.Ports) == 0 {
				t.Errorf("the policy %s lets in anybody, or to any port", p.Name)
			}
			for _, port := range rule.Ports {
				if !slices.ContainsFunc(found, func(name string) bool { return c.workloads[name].hasPort(*port.Port) }) {
					t.Errorf("the policy %s opens %v, on which none of %v listens", p.Name, port.Port, found)
				}
			}
		}
		for _, rule := range p.Spec.Egress {
			if len(rule.To) == 0 || len(rule.Ports) == 0 {
				t.Errorf("the policy %s lets out to anybody, or to any port", p.Name)
			}
			for _, to := range rule.To {
				if to.NamespaceSelector != nil {
					continue
				}
				for _, port := range rule.Ports {
					there := c.selected(t, to.PodSelector)
					if !slices.ContainsFunc(there, func(name string) bool { return c.workloads[name].hasPort(*port.Port) }) {
						t.Errorf("the policy %s leads to %v of %v, which nobody listens on", p.Name, port.Port, there)
					}
				}
			}
		}
	}
	if !closed {
		t.Error("no policy closes all pods")
	}
	for _, s := range c.services {
		found := c.selected(t, &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
		if len(found) != 1 {
			t.Errorf("the service %s leads to %v", s.Name, found)
			continue
		}
		for _, port := range s.Spec.Ports {
			if !c.workloads[found[0]].hasPort(port.TargetPort) {
				t.Errorf("the service %s leads to %s of %s, which does not listen there", s.Name, port.TargetPort.String(), found[0])
			}
		}
	}
	// A database that is named is a service, and its port is one of it.
	for _, data := range c.variables {
		for name, value := range data {
			if m := regexp.MustCompile(`^http://([^:]+):(\d+)$`).FindStringSubmatch(value); m != nil {
				if !slices.ContainsFunc(c.services, func(s *corev1.Service) bool {
					return s.Name == m[1] && slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return fmt.Sprint(p.Port) == m[2] })
				}) {
					t.Errorf("%s=%s leads nowhere", name, value)
				}
			}
		}
	}
}

// adapterRules is of the Prometheus adapter's configuration what is used here.
type adapterRules struct {
	ExternalRules []struct {
		SeriesQuery string `json:"seriesQuery"`
		Resources   struct {
			Overrides map[string]struct {
				Resource string `json:"resource"`
			} `json:"overrides"`
		} `json:"resources"`
		Name struct {
			Matches string `json:"matches"`
			As      string `json:"as"`
		} `json:"name"`
		MetricsQuery string `json:"metricsQuery"`
	} `json:"externalRules"`
}

// The autoscaler asks for what the adapter's rule makes, and that is the age of
// the oldest job in a queue that is not paused.
func TestTheAutoscalerGoesByTheAgeOfTheQueue(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../kubernetes/prometheus-adapter.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules adapterRules
	if err := yaml.UnmarshalStrict(text, &rules); err != nil {
		t.Fatal(err)
	}
	c := build(t, "scaled")
	if len(c.scalers) != 1 || len(c.scalers[0].Spec.Metrics) != 1 || len(rules.ExternalRules) != 1 {
		t.Fatalf("%d autoscalers, %d rules", len(c.scalers), len(rules.ExternalRules))
	}
	rule, asked := rules.ExternalRules[0], c.scalers[0].Spec.Metrics[0].External
	series, _, _ := strings.Cut(rule.SeriesQuery, "{")
	matches, err := regexp.Compile(rule.Name.Matches)
	if err != nil || matches.ReplaceAllString(series, rule.Name.As) != asked.Metric.Name {
		t.Errorf("%v: the autoscaler asks for %s, the rule makes %s of %s", err, asked.Metric.Name, rule.Name.As, series)
	}
	if asked.Target.Type != autoscalingv2.ValueMetricType {
		t.Errorf("an age does not sink by being divided by the runners: %s", asked.Target.Type)
	}

	promtool, err := exec.LookPath("promtool")
	if err != nil {
		skip(t, "promtool is not installed")
	}
	query, err := template.New("").Delims("<<", ">>").Parse(rule.MetricsQuery)
	if err != nil {
		t.Fatal(err)
	}
	var expr strings.Builder
	if err := query.Execute(&expr, map[string]string{"Series": series, "LabelMatchers": `namespace="postroom"`}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	samples := func(series, queue string, value int) map[string]string {
		return map[string]string{"series": fmt.Sprintf(`%s{namespace="postroom",pod="a",postroom_queue_name=%q}`, series, queue), "values": fmt.Sprint(value)}
	}
	test, err := yaml.Marshal(map[string]any{"tests": []any{map[string]any{
		"interval": "1m",
		"input_series": []any{
			samples(series, "mail", 40), samples(series, "other", 20), samples(series, "paused", 900),
			samples("postroom_queue_paused", "mail", 0), samples("postroom_queue_paused", "other", 0), samples("postroom_queue_paused", "paused", 1),
		},
		"promql_expr_test": []any{map[string]any{"expr": expr.String(), "eval_time": "0m", "exp_samples": []any{map[string]any{"labels": "{}", "value": 40}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "test.yml")
	if err := os.WriteFile(file, test, 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, said)
	}
}

// Each scrape job of the cluster's Prometheus keeps the port of pods that are
// there, under a name that the alerts go by.
func TestPrometheusFindsThePods(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../kubernetes/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		ScrapeConfigs []struct {
			JobName       string `json:"job_name"`
			Authorization struct {
				CredentialsFile string `json:"credentials_file"`
			} `json:"authorization"`
			KubernetesSDConfigs []struct {
				Role       string `json:"role"`
				Namespaces struct {
					Names []string `json:"names"`
				} `json:"namespaces"`
			} `json:"kubernetes_sd_configs"`
			RelabelConfigs []struct {
				SourceLabels []string `json:"source_labels"`
				TargetLabel  string   `json:"target_label"`
				Regex        string   `json:"regex"`
				Action       string   `json:"action"`
			} `json:"relabel_configs"`
		} `json:"scrape_configs"`
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, setup := range []string{"single", "scaled"} {
		c := build(t, setup)
		for _, job := range file.ScrapeConfigs {
			program := strings.TrimPrefix(job.JobName, "postroom-")
			found := false
			for _, w := range c.workloads {
				for _, container := range w.pod.Spec.Containers {
					for _, port := range container.Ports {
						found = found || container.Name == program && port.Name == job.RelabelConfigs[0].Regex
					}
				}
			}
			if !found {
				t.Errorf("%s: %s looks for the port %s, which no %s has", setup, job.JobName, job.RelabelConfigs[0].Regex, program)
			}
		}
	}
	if len(file.ScrapeConfigs) != 2 {
		t.Errorf("%d jobs", len(file.ScrapeConfigs))
	}
}
