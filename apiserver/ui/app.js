// The frame of the pages: which one the address asks for, the menu, and what
// is said about changes.
import { html, useEffect, useState, sayWith } from "./parts.js";
import { render } from "./vendor/preact-htm.js";
import { get, listen } from "./api.js";
import { Overview } from "./overview.js";
import { Job, Jobs } from "./jobs.js";
import { Queues } from "./queues.js";
import { Schedules } from "./schedules.js";
import { Approvals, Message, Messages } from "./mail.js";
import { Rule, Rules } from "./rules.js";
import { Configuration } from "./configuration.js";
import { Login } from "./login.js";

const menu = [
  ["", "Overview"], ["jobs", "Jobs"], ["queues", "Queues"], ["schedules", "Schedules"], ["approvals", "Approvals"],
  ["mail", "Mail"], ["rules", "Rules"], ["configuration", "Configuration"],
];

const pages = {
  "": Overview, jobs: Jobs, queues: Queues, schedules: Schedules, approvals: Approvals, mail: Messages, rules: Rules,
  configuration: Configuration, login: Login,
};
const details = { jobs: Job, mail: Message, rules: Rule };

// route reads #/page/id?name=value.
function route() {
  const [path, parameters] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, id] = path.split("/");
  return { page, id: id && decodeURIComponent(id), parameters: Object.fromEntries(new URLSearchParams(parameters)) };
}

function App() {
  const [at, go] = useState(route());
  const [said, say] = useState(null);
  useEffect(() => {
    sayWith(say);
    const moved = () => { go(route()); say(null); };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => {
    if (said === null) return undefined;
    const timer = setTimeout(() => say(null), said.fine ? 4000 : 15_000);
    return () => clearTimeout(timer);
  }, [said]);
  const Page = (at.id ? details[at.page] : pages[at.page]) ?? Missing;
  const name = menu.find(([page]) => page === at.page)?.[1];
  useEffect(() => { document.title = name ? `${name} – Postroom` : "Postroom"; }, [name]);
  return html`
    <a class="skip" href="#content" onClick=${(e) => { e.preventDefault(); document.getElementById("content").focus(); }}>Skip to the content</a>
    ${at.page !== "login" && html`<header class="container-fluid"><nav aria-label="Pages">
      <ul><li><strong>Postroom</strong></li></ul>
      <ul>${menu.map(([page, text]) => html`<li><a href=${`#/${page}`} aria-current=${page === at.page ? "page" : null}>${text}</a></li>`)}</ul>
      <ul><li><${Live} /></li><${Me} /></ul>
    </nav></header>`}
    <main id="content" class="container-fluid" tabindex="-1"><${Page} key=${location.hash} id=${at.id} parameters=${at.parameters} /></main>
    ${said && html`<p class=${said.fine ? "says fine" : "says"} role=${said.fine ? "status" : "alert"}>${said.text}</p>`}`;
}

function Live() {
  const [live, set] = useState(false);
  useEffect(() => listen(() => {}, set), []);
  return html`<small role="status" class=${live ? "live" : "live off"}>${live ? "live" : "not live"}</small>`;
}

// Me is who is logged in, where there is a login.
function Me() {
  const [me, set] = useState(null);
  useEffect(() => { get("/v1/me").then(set, () => {}); }, []);
  if (me === null || me.name === "loopback") return null;
  return html`<li><form method="post" action="/logout" class="me"><small>${me.name} (${me.role})</small> <button class="secondary small">Log out</button></form></li>`;
}

const Missing = () => html`<h1>There is no such page</h1><p><a href="#/">To the overview</a></p>`;

const place = document.getElementById("app");
place.replaceChildren();
render(html`<${App} />`, place);
