// The pieces that all pages are made of.
import { html, useEffect, useRef, useState } from "./vendor/preact-htm.js";
import { call, get, listen } from "./api.js";

export { html, useEffect, useRef, useState };

let say = () => {};
export const sayWith = (f) => { say = f; };

// act makes a change and says how it went; done runs after it succeeded.
export async function act(what, method, path, body, done = () => {}) {
  try {
    const value = await call(method, path, body);
    say({ text: `${what}: done`, fine: true });
    done(value);
    return value;
  } catch (problem) {
    say({ text: `${what}: ${problem.message}` });
    return null;
  }
}

// useData reads a path and reads it again after events, every so many
// milliseconds, and when asked to.
export function useData(path, { every = 10_000, live = true } = {}) {
  const [state, set] = useState({ value: null, problem: null });
  const again = useRef(() => {});
  useEffect(() => {
    let gone = false, waiting = null, asked = 0;
    const read = async () => {
      const mine = ++asked;
      try {
        const value = await get(path);
        if (!gone && mine === asked) set({ value, problem: null });
      } catch (problem) {
        if (!gone && mine === asked) set((s) => ({ value: s.value, problem }));
      }
    };
    again.current = read;
    read();
    const soon = () => { waiting ??= setTimeout(() => { waiting = null; read(); }, 400); };
    const stop = live ? listen(soon) : () => {};
    const timer = every > 0 ? setInterval(read, every) : null;
    return () => { gone = true; stop(); clearTimeout(waiting); clearInterval(timer); };
  }, [path]);
  return { ...state, again: () => again.current() };
}

// Shown shows what was read, or why there is nothing.
export function Shown({ of, children }) {
  return html`
    ${of.problem && html`<p role="alert">${of.problem.message}</p>`}
    ${of.value === null ? !of.problem && html`<p aria-busy="true">Reading…</p>` : children(of.value)}`;
}

export const State = ({ of }) => html`<span class=${`state state-${of}`}>${of}</span>`;

export function Time({ at }) {
  if (!at) return html`<span class="muted">–</span>`;
  return html`<time dateTime=${at} title=${at}>${since(at)}</time>`;
}

// since says how long ago, or in how long.
function since(at) {
  const seconds = (Date.now() - Date.parse(at)) / 1000;
  const text = lasting(Math.abs(seconds) * 1000);
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

export function lasting(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.round(ms / 1000) % 60} s`;
  if (ms < 86_400_000) return `${Math.floor(ms / 3_600_000)} h ${Math.floor(ms / 60_000) % 60} min`;
  return `${Math.floor(ms / 86_400_000)} d ${Math.floor(ms / 3_600_000) % 24} h`;
}

export const Json = ({ value }) => html`<pre tabindex="0"><code>${JSON.stringify(value, null, 2)}</code></pre>`;

export function Facts({ of }) {
  return html`<dl class="facts">${of.filter(([, v]) => v !== null && v !== undefined && v !== false && v !== "").map(([k, v]) => html`<dt>${k}</dt><dd>${v}</dd>`)}</dl>`;
}

// Table is rows under names; a row is a list of cells.
export function Table({ caption, names, rows, none = "Nothing here." }) {
  if (rows.length === 0) return html`<p class="muted">${none}</p>`;
  return html`<div class="wide"><table class="striped">
    <caption class="muted">${caption}</caption>
    <thead><tr>${names.map((n) => html`<th scope="col">${n}</th>`)}</tr></thead>
    <tbody>${rows.map((cells) => html`<tr>${cells.map((c, i) => html`<td data-name=${names[i]}>${c}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

// Chart draws series over time. of is {at: [seconds], lines: [{label, color, values}]}.
export function Chart({ title, of, unit = "" }) {
  const place = useRef(null), chart = useRef(null);
  useEffect(() => {
    const size = () => ({ width: place.current.clientWidth, height: 190 });
    const ink = getComputedStyle(place.current).color;
    const axis = { stroke: ink, grid: { stroke: "#8884", width: 1 }, ticks: { show: false } };
    chart.current = new uPlot({
      ...size(), title,
      series: [{}, ...of.lines.map((l) => ({ label: l.label, stroke: l.color, width: 2, fill: `${l.color}22`, points: { show: false } }))],
      axes: [axis, { ...axis, size: 55, values: (_, vs) => vs.map((v) => `${v}${unit}`) }],
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
      cursor: { y: false },
    }, [of.at, ...of.lines.map((l) => l.values)], place.current);
    const watch = new ResizeObserver(() => chart.current.setSize(size()));
    watch.observe(place.current);
    return () => { watch.disconnect(); chart.current.destroy(); };
  }, []);
  useEffect(() => chart.current?.setData([of.at, ...of.lines.map((l) => l.values)]), [of]);
  const now = of.lines.map((l) => `${l.label} ${l.values.at(-1) ?? 0}${unit}`).join(", ");
  return html`<div ref=${place} role="img" aria-label=${`${title}: ${now}`}></div>`;
}

// More asks for the next page of a list.
export const More = ({ next, onMore }) => next && html`<p><button class="secondary small" onClick=${() => onMore(next)}>More</button></p>`;
