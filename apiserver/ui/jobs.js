// Jobs by state, and one job with what happened to it.
import { Facts, Json, More, Shown, State, Table, Time, act, html, lasting, useData, useState } from "./parts.js";
import { post, query } from "./api.js";

const states = ["queued", "running", "completed", "failed", "canceled"];
const anID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export function Jobs({ parameters }) {
  const { state, type, queue, key, payload, cursor } = parameters;
  const filter = { state, type, queue, key, payload };
  const read = useData(query("/v1/jobs", { ...filter, cursor }));
  const show = (event) => {
    event.preventDefault();
    const form = Object.fromEntries(new FormData(event.target));
    const id = form.id.trim().toLowerCase();
    location.hash = anID.test(id) ? `#/jobs/${id}` : query("#/jobs", { state: form.state, type: form.type, queue: form.queue, key: form.key, payload: form.payload.trim() });
  };
  return html`<h1>Jobs</h1>
    <form class="row" onSubmit=${show} role="search">
      <label>State<select name="state"><option value="">any</option>${states.map((s) => html`<option selected=${s === state}>${s}</option>`)}</select></label>
      <label>Type<input name="type" value=${type} /></label>
      <label>Queue<input name="queue" value=${queue} /></label>
      <label>Key<input name="key" value=${key} placeholder="idempotency or limit key" /></label>
      <label>Payload<input name="payload" value=${payload} placeholder="user.id=7" pattern=" *[^=]+=.*" /></label>
      <label>Id<input name="id" placeholder="goes to the job" pattern=" *[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12} *" /></label>
      <button>Show</button>
    </form>
    <${Many} key=${query("", filter)} filter=${filter} done=${read.again} />
    <${Shown} of=${read}>${(list) => html`
      <${Table} caption="Newest first" names=${["job", "type", "queue", "state", "attempts", "stored", "last error", ""]} none="No job is like that."
        rows=${list.jobs.map((j) => [
          html`<a href=${`#/jobs/${j.id}`}>${j.id}</a>`, j.type, j.queue, html`<${State} of=${j.state} />`, `${j.attempts} (${j.failures} of ${j.max_attempts} failed)`,
          html`<${Time} at=${j.created_at} />`, j.last_error ?? "", html`<${Buttons} job=${j} done=${read.again} />`,
        ])} />
      ${list.partial && html`<p class="muted">The list stopped because enough was looked at; there may be more.</p>`}
      <${More} next=${list.next_cursor} onMore=${(next) => { location.hash = query("#/jobs", { ...filter, cursor: next }); }} />`}<//>`;
}

// changes are what can be done to all jobs of a filter, and to those in which
// states.
const changes = { cancel: ["queued", "running"], retry: ["failed", "canceled"], delete: ["completed", "failed", "canceled"] };

// Many changes all jobs that the list's filter chooses: first it counts them,
// and asks.
function Many({ filter, done }) {
  const [asked, ask] = useState(null);
  if (!Object.values(filter).some(Boolean)) return null;
  const all = async (verb, dry_run) => {
    const sum = { matched: 0, changed: 0 };
    for (let cursor = ""; cursor !== null;) {
      const part = await post(query(`/v1/jobs:${verb}`, { ...filter, cursor, dry_run }));
      sum.matched += part.matched;
      sum.changed += part.changed;
      cursor = part.next_cursor;
    }
    return sum;
  };
  const count = async (verb) => {
    ask({ verb, text: "Counting…" });
    try { ask({ verb, jobs: (await all(verb, true)).matched }); } catch (problem) { ask({ verb, text: problem.message }); }
  };
  const change = async () => {
    const { verb } = asked;
    ask({ verb, text: "Working…" });
    try {
      const { matched, changed } = await all(verb);
      ask({ verb, text: `${verb}: ${changed} of ${matched} jobs were changed.` });
    } catch (problem) { ask({ verb, text: problem.message }); }
    done();
  };
  return html`<div class="row" role="group" aria-label="All jobs of this filter">
    ${Object.entries(changes).filter(([, states]) => !filter.state || states.includes(filter.state)).map(([verb]) =>
      html`<button class="secondary" onClick=${() => count(verb)}>${`${verb[0].toUpperCase()}${verb.slice(1)} all…`}</button>`)}
    <span role="status">${asked?.text}${asked?.jobs === 0 && `There is no job to ${asked.verb}.`}</span>
    ${asked?.jobs > 0 && html`<button onClick=${change}>${`Yes, ${asked.verb} ${asked.jobs} jobs`}</button><button class="secondary" onClick=${() => ask(null)}>No</button>`}
  </div>`;
}

function Buttons({ job, done }) {
  const button = (text, verb) => html`<button class="secondary" aria-label=${`${text} job ${job.id}`} onClick=${() => act(`${text} ${job.id}`, "POST", `/v1/jobs/${job.id}/${verb}`, undefined, done)}>${text}</button>`;
  if (job.state === "queued" || job.state === "running") {
    const waits = job.state === "queued" && job.not_before && Date.parse(job.not_before) > Date.now();
    return html`${waits && button("Run now", "run-now")} ${button("Cancel", "cancel")}`;
  }
  return job.state === "completed" ? null : button("Retry", "retry");
}

export function Job({ id }) {
  const read = useData(`/v1/jobs/${id}`);
  return html`<${Shown} of=${read}>${(j) => html`
    <h1>${j.type} <${State} of=${j.state} /></h1>
    <div class="row"><${Buttons} job=${j} done=${read.again} /></div>
    ${(j.state === "queued" || j.state === "running") && html`<${Why} id=${id} />`}
    <${Facts} of=${[
      ["id", j.id], ["queue", html`<a href=${`#/jobs?queue=${encodeURIComponent(j.queue)}`}>${j.queue}</a>`], ["priority", j.priority],
      ["attempts", `${j.attempts}, of them ${j.failures} failed; at most ${j.max_attempts} may`], ["crashes", j.crashes || null],
      ["stored", html`<${Time} at=${j.created_at} />`], ["not before", j.not_before && html`<${Time} at=${j.not_before} />`],
      ["ended", j.finished_at && html`<${Time} at=${j.finished_at} />`], ["idempotency key", j.idempotency_key], ["limit key", j.limit_key],
      ["held by", j.claimed_by], ["cancel asked for", j.cancel_requested_at && html`<${Time} at=${j.cancel_requested_at} />`],
      ["comes after", j.after.length > 0 && j.after.map((a) => html`<a href=${`#/jobs/${a.id}`}>${a.id}</a> `)],
      ["stored by", j.parent_id && html`<a href=${`#/jobs/${j.parent_id}`}>${j.parent_id}</a>`], ["trace", j.trace_id], ["last error", j.last_error],
    ]} />
    <h2>In time</h2><${Timeline} job=${j} />
    ${j.steps.length > 0 && html`<h2>Steps</h2><${Table} caption="Their results are kept and not made again" names=${["step", "run", "outcome", "took", "result", "error"]}
      rows=${j.steps.map((s) => [s.name, s.run, s.outcome, s.finished_at ? lasting(Date.parse(s.finished_at) - Date.parse(s.started_at)) : "–",
        s.result === null ? "" : JSON.stringify(s.result).slice(0, 300), s.outcome === "uncertain" ? html`${s.error ?? ""} <${Settle} job=${id} step=${s.name} done=${read.again} />` : s.error ?? ""])} />`}
    <h2>Runs</h2><${Table} caption="Each claim, and how it ended" names=${["run", "runner", "outcome", "began", "took", "error"]} none="It has not run yet."
      rows=${j.runs.map((r) => [r.run, r.runner, r.outcome, html`<${Time} at=${r.started_at} />`, lasting(Date.parse(r.finished_at) - Date.parse(r.started_at)),
        html`${r.error ?? ""}${r.stack && html`<details><summary>stack</summary><pre tabindex="0">${r.stack}</pre></details>`}`])} />
    <h2>Payload</h2><${Json} value=${j.payload} />
    ${j.state === "completed" && html`<h2>Result</h2><${Json} value=${j.result} />`}
    <h2>History</h2><${Table} caption="Every change of its state" names=${["number", "state", "run", "when"]}
      rows=${j.history.map((h) => [h.seq, html`<${State} of=${h.state} />`, h.run, html`<${Time} at=${h.at} />`])} />`}<//>`;
}

function Why({ id }) {
  const read = useData(`/v1/jobs/${id}/why`, { every: 5000 });
  return html`<h2>Why is it not running?</h2><${Shown} of=${read}>${(why) => html`<ul>${why.reasons.map((r) => html`<li>${r.text}${r.until && html` (<${Time} at=${r.until} />)`}</li>`)}</ul>
    ${why.ahead !== null && html`<p>${why.ahead}${why.more ? " or more" : ""} jobs stand before it in line.</p>`}`}<//>`;
}

function Settle({ job, step, done }) {
  const settle = (outcome) => act(`Settle ${step}`, "POST", `/v1/jobs/${job}/steps/${encodeURIComponent(step)}/settle`, outcome, done);
  return html`<button onClick=${() => settle({ happened: true })}>It happened</button> <button class="secondary" onClick=${() => settle({ happened: false })}>It did not</button>`;
}

// Timeline is the job's life as bars: what it waited, its runs, its steps.
function Timeline({ job }) {
  const ms = (at) => Date.parse(at);
  const begin = ms(job.created_at), end = Math.max(begin + 1, job.finished_at ? ms(job.finished_at) : Date.now());
  const lanes = [];
  const bar = (kind, from, to, text) => html`<span class=${`bar bar-${kind}`} title=${`${text}: ${lasting(Math.max(0, to - from))}`}
    style=${{ left: `${100 * (from - begin) / (end - begin)}%`, width: `${100 * (to - from) / (end - begin)}%` }}></span>`;
  const lane = (name, bars) => lanes.push(html`<span>${name}</span><div class="lane" role="img" aria-label=${name}>${bars}</div>`);
  const waits = [];
  let since = begin;
  for (const r of job.runs) { waits.push(bar("wait", since, ms(r.started_at), "waited")); since = ms(r.finished_at); }
  if (job.state === "queued") waits.push(bar("wait", since, end, "waits"));
  lane("waiting", waits);
  for (const r of job.runs) lane(`run ${r.run} ${r.outcome}`, bar(r.outcome, ms(r.started_at), ms(r.finished_at), r.outcome));
  const running = job.history.findLast((h) => h.state === "running");
  if (job.state === "running" && running) lane(`run ${running.run} running`, bar("running", ms(running.at), end, "running"));
  for (const s of job.steps) lane(`step ${s.name}`, bar(s.outcome, ms(s.started_at), s.finished_at ? ms(s.finished_at) : end, s.outcome));
  return html`<div class="timeline">${lanes}</div><p class="muted">${lasting(end - begin)} from when it was stored ${job.finished_at ? "to its end" : "until now"}.</p>`;
}

