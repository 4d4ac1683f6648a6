// Queues with their limits, and who works them.
import { Shown, Table, Time, act, html, useData } from "./parts.js";

export function Queues() {
  const queues = useData("/v1/queues"), limits = useData("/v1/limits"), runners = useData("/v1/runners", { every: 5000, live: false });
  const flip = (q) => {
    const verb = q.paused ? "resume" : "pause";
    act(`${verb} ${q.name}`, "POST", `/v1/queues/${encodeURIComponent(q.name)}/${verb}`, undefined, queues.again);
  };
  return html`<h1>Queues</h1>
    <${Shown} of=${queues}>${(v) => html`<${Table} caption="A paused queue starts no jobs; those that run go on" names=${["queue", "queued", "running", "at most", ""]}
      none="No job was ever stored." rows=${v.queues.map((q) => [html`<a href=${`#/jobs?queue=${encodeURIComponent(q.name)}`}>${q.name}</a>${q.paused ? " (paused)" : ""}`,
        q.depth.queued, q.depth.running, q.max_running ?? "any number",
        html`<button class="secondary" aria-label=${`${q.paused ? "Resume" : "Pause"} ${q.name}`} onClick=${() => flip(q)}>${q.paused ? "Resume" : "Pause"}</button>`])} />`}<//>
    <h2>Limits</h2>
    <${Shown} of=${limits}>${(v) => html`<${Table} caption="How many run at once, and how close two starts of a key may be" names=${["scope", "name", "at once", "between starts", ""]}
      none="There are none." rows=${v.limits.map((l) => [l.scope, l.name, l.max_running ?? "any number", l.interval ?? "–",
        html`<button class="secondary" aria-label=${`Drop the limit of ${l.scope} ${l.name}`} onClick=${() => act(`Drop the limit of ${l.name}`, "DELETE", path(l.scope, l.name), undefined, limits.again)}>Drop</button>`])} />`}<//>
    <${NewLimit} done=${limits.again} />
    <h2>Runners</h2>
    <${Shown} of=${runners}>${(v) => html`<${Table} caption="Heard of in the last day" names=${["runner", "version", "slots", "queues", "began", "heard of"]} none="No runner works: start queuerunner."
      rows=${v.runners.map((r) => [r.id, r.version, r.concurrency, r.queues.join(", ") || "all", html`<${Time} at=${r.started_at} />`, html`<${Time} at=${r.heartbeat_at} />`])} />`}<//>`;
}

const path = (scope, name) => `/v1/limits/${scope}/${encodeURIComponent(name)}`;

function NewLimit({ done }) {
  const set = (event) => {
    event.preventDefault();
    const form = Object.fromEntries(new FormData(event.target));
    const limit = {};
    if (form.most !== "") limit.max_running = Number(form.most);
    if (form.interval !== "") limit.interval = form.interval;
    act(`Limit ${form.name}`, "PUT", path(form.scope, form.name), limit, () => { event.target.reset(); done(); });
  };
  return html`<form class="row" onSubmit=${set}>
    <label>Scope<select name="scope"><option>queue</option><option>type</option><option>key</option></select></label>
    <label>Name<input name="name" required /></label>
    <label>At once<input name="most" type="number" min="0" /></label>
    <label>Between starts<input name="interval" placeholder="1s, of a key" /></label>
    <button>Set limit</button>
  </form>`;
}
