// Messages with what was decided and done about them, and what waits for a
// person's word.
import { Facts, More, Shown, State, Table, Time, act, html, useData } from "./parts.js";
import { query } from "./api.js";

export function Messages({ parameters }) {
  const { q, label, cursor } = parameters;
  const read = useData(query("/v1/messages", { q, label, cursor }));
  const find = (event) => {
    event.preventDefault();
    location.hash = query("#/mail", Object.fromEntries(new FormData(event.target)));
  };
  return html`<h1>Mail</h1>
    <form class="row" onSubmit=${find} role="search">
      <label>Words<input name="q" value=${q} type="search" placeholder="in sender, subject or text" /></label>
      <label>Label<input name="label" value=${label} /></label>
      <button>Find</button>
    </form>
    <${Shown} of=${read}>${(v) => html`
      <${Table} caption="Newest first" names=${["subject", "from", "received", "folder", "decision"]} none="No message is like that."
        rows=${v.messages.map((m) => [html`<a href=${`#/mail/${m.id}`}>${m.subject || "(no subject)"}</a>`, m.from_name || m.from_email, html`<${Time} at=${m.received_at} />`,
          m.raw.folder || "Inbox", m.decision ? html`${m.decision.action_type}${m.decision.rule_name ? ` by ${m.decision.rule_name}` : ""} ${m.decision.action_status && html`<${State} of=${m.decision.action_status} />`}` : "–"])} />
      <${More} next=${v.next_cursor} onMore=${(next) => { location.hash = query("#/mail", { q, label, cursor: next }); }} />`}<//>`;
}

export function Message({ id }) {
  const read = useData(`/v1/messages/${id}`);
  const names = (list) => list.map((a) => (a.name ? `${a.name} <${a.email}>` : a.email)).join(", ");
  return html`<${Shown} of=${read}>${(m) => html`
    <h1>${m.subject || "(no subject)"}</h1>
    <${Facts} of=${[
      ["from", names([{ name: m.from_name, email: m.from_email }])], ["to", names(m.to)], ["cc", names(m.cc)], ["received", html`<${Time} at=${m.received_at} />`],
      ["folder", m.raw.folder || "Inbox"], ["labels", m.labels.join(", ")], ["automatic", m.automatic], ["notes", m.raw.notes.join("; ")],
      ["attachments", m.raw.attachments.map((a) => a.name || a.content_type).join(", ")],
    ]} />
    <h2>Decisions</h2><${Table} caption="What the rules said" names=${["action", "because", "when"]} none="None yet."
      rows=${m.decisions.map((d) => [d.action_type, d.rationale, html`<${Time} at=${d.created_at} />`])} />
    <h2>Actions</h2><${Actions} list=${m.actions} done=${read.again} />
    <h2>Text</h2><pre tabindex="0">${m.body_plain ?? "(no plain text)"}</pre>`}<//>`;
}

function Actions({ list, done }) {
  const button = (a, text, verb) => html`<button class="secondary" aria-label=${`${text} ${a.action_type}`} onClick=${() => act(`${text} ${a.action_type}`, "POST", `/v1/actions/${a.id}/${verb}`, undefined, done)}>${text}</button> `;
  return html`<${Table} caption="What was done, or is to be" names=${["action", "parameters", "status", "when", ""]} none="None."
    rows=${list.map((a) => [a.action_type, JSON.stringify(a.parameters), html`<${State} of=${a.status} />${a.error_message ? ` ${a.error_message}` : ""}`, html`<${Time} at=${a.executed_at ?? a.created_at} />`,
      html`${a.status === "approved_pending" && html`${button(a, "Approve", "approve")}${button(a, "Reject", "reject")}`}${a.status === "queued" && button(a, "Call off", "cancel")}
        ${a.status === "completed" && (a.undone_by ? "undone" : a.undoable ? button(a, "Undo", "undo") : "cannot be undone")}`])} />`;
}

export function Approvals({ parameters }) {
  const read = useData(query("/v1/actions", { status: "approved_pending", cursor: parameters.cursor }));
  return html`<h1>Approvals</h1>
    <${Shown} of=${read}>${(v) => html`
      <${Table} caption="What waits for a person's word" names=${["message", "action", "parameters", "expires", ""]} none="Nothing waits."
        rows=${v.actions.map((a) => [html`<a href=${`#/mail/${a.message_id}`}>${a.message_id}</a>`, a.action_type, JSON.stringify(a.parameters), html`<${Time} at=${a.approval_expires_at} />`,
          html`<button aria-label=${`Approve ${a.action_type}`} onClick=${() => act(`Approve ${a.action_type}`, "POST", `/v1/actions/${a.id}/approve`, undefined, read.again)}>Approve</button>
            <button class="secondary" aria-label=${`Reject ${a.action_type}`} onClick=${() => act(`Reject ${a.action_type}`, "POST", `/v1/actions/${a.id}/reject`, undefined, read.again)}>Reject</button>`])} />
      <${More} next=${v.next_cursor} onMore=${(next) => { location.hash = query("#/approvals", { cursor: next }); }} />`}<//>`;
}
