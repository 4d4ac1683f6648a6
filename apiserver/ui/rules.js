// Rules, and an editor that shows what a rule would do before it is saved.
import { More, Shown, Table, act, html, useData, useState } from "./parts.js";
import { post, query } from "./api.js";

export function Rules({ parameters }) {
  const read = useData(query("/v1/rules", { cursor: parameters.cursor }), { live: false, every: 0 });
  const flip = (r) => act(`${r.enabled ? "Disable" : "Enable"} ${r.name}`, "PATCH", `/v1/rules/${r.id}`,
    r.enabled ? { enabled: false, disabled_reason: "by hand, on the page" } : { enabled: true }, read.again);
  return html`<h1>Rules</h1>
    <p><a href="#/rules/new" role="button" class="small">New rule</a></p>
    <${Shown} of=${read}>${(v) => html`
      <${Table} caption="Lower priority numbers are tried first; the first that matches decides" names=${["priority", "name", "action", "scope", "enabled", ""]} none="There are none."
        rows=${v.rules.toSorted((a, b) => a.priority - b.priority).map((r) => [r.priority, html`<a href=${`#/rules/${r.id}`}>${r.name}</a>`, r.action_type, r.scope_ref ? `${r.scope} ${r.scope_ref}` : r.scope,
          r.enabled ? "yes" : `no: ${r.disabled_reason ?? ""}`, html`<button class="secondary" aria-label=${`${r.enabled ? "Disable" : "Enable"} ${r.name}`} onClick=${() => flip(r)}>${r.enabled ? "Disable" : "Enable"}</button>`])} />
      <${More} next=${v.next_cursor} onMore=${(next) => { location.hash = query("#/rules", { cursor: next }); }} />`}<//>`;
}

const example = {
  name: "", description: "", scope: "global", priority: 100, enabled: true,
  conditions: { op: "and", children: [{ op: "sender_domain", value: "example.com" }, { op: "subject_contains", value: "invoice" }] },
  action_type: "apply_label", action_parameters: { label: "Invoices" }, safe_mode: "default",
};

const fields = ["name", "description", "scope", "scope_ref", "priority", "enabled", "disabled_reason", "conditions", "action_type", "action_parameters", "safe_mode"];

export function Rule({ id }) {
  if (id === "new") return html`<h1>New rule</h1><${Editor} rule=${example} />`;
  const read = useData(`/v1/rules/${id}`, { live: false, every: 0 });
  return html`<${Shown} of=${read}>${(r) => html`<h1>${r.name}</h1>
    <${Editor} id=${id} rule=${Object.fromEntries(fields.filter((f) => r[f] !== null && r[f] !== undefined).map((f) => [f, r[f]]))} />`}<//>`;
}

function Editor({ id, rule }) {
  const [text, write] = useState(JSON.stringify(rule, null, 2));
  const [trial, tried] = useState(null);
  const parsed = () => {
    try {
      return JSON.parse(text);
    } catch (e) {
      tried({ problem: `this is not JSON: ${e.message}` });
      return null;
    }
  };
  const tryIt = async () => {
    const r = parsed();
    if (r === null) return;
    try {
      tried({ ...await post("/v1/rules:dryrun", { rules: [r], limit: 200 }) });
    } catch (problem) {
      tried({ problem: problem.message });
    }
  };
  const save = (event) => {
    event.preventDefault();
    const r = parsed();
    if (r === null) return;
    act(`Save ${r.name}`, id ? "PUT" : "POST", id ? `/v1/rules/${id}` : "/v1/rules", r, () => { location.hash = "#/rules"; });
  };
  const remove = () => {
    if (confirm(`Delete the rule ${rule.name}? What it did stays.`)) act(`Delete ${rule.name}`, "DELETE", `/v1/rules/${id}`, undefined, () => { location.hash = "#/rules"; });
  };
  return html`<form onSubmit=${save}>
    <label>The rule<textarea class="code" spellcheck="false" value=${text} onInput=${(e) => write(e.target.value)}></textarea></label>
    <div class="row"><button type="button" class="secondary" onClick=${tryIt}>Try on stored mail</button><button>Save</button>
      ${id && html`<button type="button" class="outline secondary" onClick=${remove}>Delete</button>`}</div>
  </form>
  ${trial && html`<div role="status"><h2>What it would do</h2>${trial.problem ? html`<p role="alert">${trial.problem}</p>` : html`<${Trial} of=${trial.messages} />`}</div>`}`;
}

function Trial({ of }) {
  const matched = of.filter((m) => m.rule_name !== null);
  const change = (c) => `${c.what}: ${c.before ?? "nothing"} → ${c.after ?? "nothing"}`;
  return html`<p>It matches ${matched.length} of the newest ${of.length} messages. Nothing was changed.</p>
    <${Table} caption="Messages it matches" names=${["message", "from", "action", "changes"]} none="None."
      rows=${matched.map((m) => [html`<a href=${`#/mail/${m.message_id}`}>${m.subject || "(no subject)"}</a>`, m.from_email,
        `${m.action_type}${m.needs_approval ? ", after approval" : ""}${m.undoable ? "" : ", cannot be undone"}`, m.changes.map(change).join("; ") || "none"])} />`;
}
