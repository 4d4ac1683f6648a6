package archtest

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../../.."

// exported finds the instruments in the code and returns their names as
// Prometheus spells them; a histogram has its three.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	instrument := regexp.MustCompile(`\.(?:Int64|Float64)(?:Observable)?(Counter|UpDownCounter|Gauge|Histogram)\("(postroom\.[a-z_.]+)"([^\n]*)`)
	names := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(top, "core"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range instrument.FindAllStringSubmatch(string(text), -1) {
			name := strings.ReplaceAll(m[2], ".", "_")
			if strings.Contains(m[3], `WithUnit("s")`) {
				name += "_seconds"
			}
			if m[1] == "Counter" {
				name += "_total"
			}
			names[name] = m[1] == "Histogram"
		}
		return nil
	})
	if err != nil || len(names) < 10 {
		t.Fatalf("%d instruments, %v", len(names), err)
	}
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What dashboards, alerts and pages call a metric is exported by that name,
// and every metric is described.
func TestMetricsThatAreNamedAreExported(t *testing.T) {
	t.Parallel()
	names := exported(t)
	all := maps.Clone(names)
	for name, histogram := range names {
		if histogram {
			for _, end := range []string{"_bucket", "_sum", "_count"} {
				all[name+end] = false
			}
		}
	}
	used := regexp.MustCompile(`\bpostroom_[a-z_]+`)
	labels := []string{"postroom_queue_name", "postroom_job_state", "postroom_job_type", "postroom_cron_name"}
	for _, file := range []string{"deploy/monitoring/alerts.yml", "deploy/monitoring/alerts_test.yml", "deploy/monitoring/dashboard.json", "deploy/kubernetes/prometheus-adapter.yml", "deploy/kubernetes/scaled/queuerunner.yaml", "docs/monitoring.md"} {
		found := used.FindAllString(read(t, file), -1)
		if len(found) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range found {
			if _, is := all[name]; !is && !slices.Contains(labels, name) {
				t.Errorf("%s names %s, which is not exported", file, name)
			}
		}
	}
	page := read(t, "docs/monitoring.md")
	for name := range names {
		if !strings.Contains(page, "\n| `"+name+"` |") {
			t.Errorf("docs/monitoring.md does not describe %s", name)
		}
	}
}

func TestEachAlertHasItsPage(t *testing.T) {
	t.Parallel()
	alerts, page := read(t, "deploy/monitoring/alerts.yml"), read(t, "docs/monitoring.md")
	found := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(alerts, -1)
	for _, m := range found {
		if !strings.Contains(page, "\n### "+m[1]+"\n") || !strings.Contains(alerts, "runbook: docs/monitoring.md#"+strings.ToLower(m[1])+"\n") {
			t.Errorf("%s has no page, or does not name it", m[1])
		}
	}
	if headings := strings.Count(page, "\n### "); len(found) == 0 || headings != len(found) {
		t.Errorf("%d alerts, %d pages", len(found), headings)
	}
}

func TestPrometheusTakesItsFiles(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (it comes with Debian's package prometheus)")
	}
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = filepath.Join(top, "deploy/monitoring")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
