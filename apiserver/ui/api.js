// What the pages know of the API: calls, problems, and the stream of events.

// Problem is an error as the API tells it.
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || `the service answered ${status}`);
    this.status = status;
    this.code = body.code;
  }
}

// call asks the API. A caller who is not known is sent to the login.
export async function call(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Problem(0, { detail: "the service cannot be reached", code: "unreachable" });
  }
  const text = await answer.text();
  let value = {};
  try { value = text === "" ? {} : JSON.parse(text); } catch { /* a proxy's page says nothing that helps */ }
  if (answer.status === 401 && !location.hash.startsWith("#/login")) location.hash = "#/login";
  if (!answer.ok) throw new Problem(answer.status, value);
  return value;
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);

// query is a path with those parameters that have a value.
export function query(path, parameters) {
  const p = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value) p.set(name, value);
  const text = p.toString();
  return text === "" ? path : `${path}?${text}`;
}

const listeners = new Set();
let source = null;

// listen calls heard for each change of a job's state, and told when the
// stream begins and ends. It returns what ends the listening.
export function listen(heard, told = () => {}) {
  const listener = { heard, told };
  listeners.add(listener);
  open();
  told(source.readyState === EventSource.OPEN);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) { source.close(); source = null; }
  };
}

function open() {
  if (source !== null && source.readyState !== EventSource.CLOSED) return;
  source = new EventSource("/v1/events"); // which comes again by itself, with the last id
  source.onopen = () => listeners.forEach((l) => l.told(true));
  source.onerror = () => listeners.forEach((l) => l.told(false));
  source.addEventListener("job", (e) => {
    const change = JSON.parse(e.data);
    listeners.forEach((l) => l.heard(change));
  });
  source.addEventListener("reset", () => listeners.forEach((l) => l.heard({})));
}
