// The configuration of this apiserver and where each value came from.
import { Shown, Table, html, useData } from "./parts.js";

export function Configuration() {
  const read = useData("/v1/config", { live: false, every: 0 });
  return html`<h1>Configuration</h1><p class="muted">Of this apiserver. Secrets are shown as ***; the runners have their own.</p>
    <${Shown} of=${read}>${(v) => html`<${Table} caption="Every key" names=${["key", "value", "from"]}
      rows=${v.settings.map((s) => [html`<code>${s.key}</code>`, html`<code>${JSON.stringify(s.value)}</code>`, s.origin + (s.reserved ? ", reserved" : "")])} />`}<//>`;
}
