// Schedules: what comes by itself, and when.
import { Shown, Table, Time, act, html, useData } from "./parts.js";

export function Schedules() {
  const read = useData("/v1/cron", { every: 10_000 });
  const button = (c, text, verb) => html`<button class="secondary" aria-label=${`${text} ${c.name}`} onClick=${() => act(`${text} ${c.name}`, "POST", `/v1/cron/${encodeURIComponent(c.name)}/${verb}`, undefined, read.again)}>${text}</button>`;
  return html`<h1>Schedules</h1>
    <${Shown} of=${read}>${(v) => html`<${Table} caption="By name" names=${["name", "schedule", "type", "next", "last job", ""]}
      none=${html`There are none: <code>queuerunner cron set NAME SCHEDULE TYPE</code> makes one.`}
      rows=${v.cron.map((c) => [c.name, `${c.schedule} (${c.tz})`, c.type, c.paused ? "paused" : html`<${Time} at=${c.next_at} />`,
        c.last_job_id ? html`<a href=${`#/jobs/${c.last_job_id}`}>${c.last_job_id}</a>` : "–",
        html`${button(c, "Trigger", "trigger")} ${c.paused ? button(c, "Resume", "resume") : button(c, "Pause", "pause")}`])} />`}<//>`;
}
