// How things stand and how they go, as it happens.
import { Chart, Shown, Table, html, lasting, useData, useEffect, useRef, useState } from "./parts.js";
import { listen } from "./api.js";

const green = "#2e9d5b", red = "#d84343", amber = "#c98a00", blue = "#3b82d6";
const kept = 300; // points of a chart

// useRates counts what ends, second by second, since the page was opened.
function useRates() {
  const counts = useRef({ completed: 0, failed: 0, queued: 0 });
  const [of, set] = useState({ at: [], completed: [], failed: [], share: [] });
  useEffect(() => {
    const stop = listen((change) => { if (change.state in counts.current) counts.current[change.state]++; });
    const timer = setInterval(() => {
      const { completed, failed } = counts.current;
      counts.current = { completed: 0, failed: 0, queued: 0 };
      const add = (list, v) => [...list, v].slice(-kept);
      set((s) => ({
        at: add(s.at, Math.floor(Date.now() / 1000)), completed: add(s.completed, completed), failed: add(s.failed, failed),
        share: add(s.share, completed + failed === 0 ? 0 : Math.round(100 * failed / (completed + failed))),
      }));
    }, 1000);
    return () => { stop(); clearInterval(timer); };
  }, []);
  return of;
}

// useDepths keeps what waited and ran each time the queues were read.
function useDepths(queues) {
  const [of, set] = useState({ at: [], queued: [], running: [] });
  useEffect(() => {
    if (queues === null) return;
    const add = (list, v) => [...list, v].slice(-kept);
    set((s) => ({
      at: add(s.at, Date.now() / 1000), queued: add(s.queued, sum(queues, "queued")), running: add(s.running, sum(queues, "running")),
    }));
  }, [queues]);
  return of;
}

const sum = (queues, state) => queues.reduce((n, q) => n + q.depth[state], 0);

export function Overview() {
  const read = useData("/v1/queues", { every: 2000, live: false });
  const runners = useData("/v1/runners", { every: 5000, live: false });
  const rates = useRates();
  const queues = read.value?.queues ?? null;
  const depths = useDepths(queues);
  const card = (name, value) => html`<div class="card"><dt>${name}</dt><dd>${value}</dd></div>`;
  return html`<h1>Overview</h1>
    <${Shown} of=${read}>${() => html`
      <dl class="cards">
        ${card("queued", sum(queues, "queued"))}${card("running", sum(queues, "running"))}${card("failed", sum(queues, "failed"))}
        ${card("first in line waits", lasting(Math.max(0, ...queues.map((q) => q.oldest_waiting_ms))))}
        ${card("runners", runners.value?.runners.length ?? "…")}
      </dl>
      <div class="charts">
        <${Chart} title="Jobs ended a second" of=${{ at: rates.at, lines: [{ label: "completed", color: green, values: rates.completed }, { label: "failed", color: red, values: rates.failed }] }} />
        <${Chart} title="Depth" of=${{ at: depths.at, lines: [{ label: "queued", color: amber, values: depths.queued }, { label: "running", color: blue, values: depths.running }] }} />
        <${Chart} title="Failed, of those that ended" unit="%" of=${{ at: rates.at, lines: [{ label: "failed", color: red, values: rates.share }] }} />
      </div>
      <h2>Queues</h2>
      <${Table} caption="Jobs by state" names=${["queue", "queued", "running", "completed", "failed", "canceled", "first in line waits"]}
        none="No job was ever stored." rows=${queues.map((q) => [
          html`<a href=${`#/jobs?queue=${encodeURIComponent(q.name)}`}>${q.name}</a>${q.paused ? " (paused)" : ""}`,
          ...["queued", "running", "completed", "failed", "canceled"].map((s) => html`<a href=${`#/jobs?queue=${encodeURIComponent(q.name)}&state=${s}`}>${q.depth[s]}</a>`),
          q.oldest_waiting_at ? lasting(q.oldest_waiting_ms) : "–",
        ])} />`}<//>`;
}
