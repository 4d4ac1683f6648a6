// The login: the token goes into a cookie that scripts cannot read.
import { html } from "./parts.js";

export function Login({ parameters }) {
  return html`<article><h1>Postroom</h1>
    ${parameters.wrong && html`<p role="alert">That token is not known.</p>`}
    ${parameters.wait && html`<p role="alert">Too many wrong tokens came from your address: wait a minute.</p>`}
    <form method="post" action="/login">
      <label>Token<input name="token" type="password" required autocomplete="current-password" autofocus /></label>
      <button>Log in</button>
    </form></article>`;
}
