// A task's life: what happened to it, when, and what came of it.

import { ask, Refused, task } from "./api.js";
import { make } from "./dom.js";
import { mark, show } from "./tasks.js";
import { clock, duration } from "./text.js";

const FINAL = ["SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "DEAD"];

/** The dialog with it. */
export class History {
  #dialog = document.getElementById("history");
  #body = document.getElementById("history-body");
  #id = null;
  #seen = null;

  constructor() {
    document.getElementById("history-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("close", () => {
      this.#id = null;
    });
    // A click beside the dialog closes it, as it does elsewhere.
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
  }

  /** Shows one task's life. */
  async open(id) {
    this.#id = id;
    this.#seen = null;
    this.#body.replaceChildren(make("p", {}, "One moment …"));
    this.#dialog.showModal();
    await this.#refresh();
  }

  /** Reads it again if the snapshot shows that something happened to the task. */
  show(snapshot) {
    const now = snapshot.tasks?.find((one) => one.id === this.#id);
    if (now && this.#seen !== null && this.#seen !== `${now.state} ${now.attempt}`) this.#refresh();
  }

  async #refresh() {
    const id = this.#id;
    try {
      const [now, { events, truncated }] = await Promise.all([ask("GET", task(id)), ask("GET", task(id, "history"))]);
      if (id !== this.#id) return;
      this.#seen = `${now.state} ${now.attempt}`;
      this.#body.replaceChildren(...this.#facts(now), ...this.#events(events, truncated));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (id === this.#id) this.#body.replaceChildren(make("p", { class: "note trouble" }, error.message));
    }
  }

  #facts(now) {
    const state = mark();
    show(state, now.state);
    const facts = [
      ["Task", make("code", {}, now.id)],
      ["Method", `${now.service}/${now.method}`],
      ["State", state],
      [FINAL.includes(now.state) ? "Kept until" : "Given up at", now.expireTime && clock(now.expireTime)],
      ["Reason", now.reason],
      ["Response", now.response && make("code", {}, JSON.stringify(now.response))],
      ["Error", now.error && `${now.error.code}: ${now.error.detail}`],
    ];
    const known = facts.filter(([, value]) => value);
    return [make("dl", {}, ...known.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))))];
  }

  #events(events, truncated) {
    const list = make("ol", { class: "events", role: "list" });
    let last = null;
    for (const event of events) {
      const at = Date.parse(event.time);
      const gap = last === null ? "" : `+${duration((at - last) / 1000)}`;
      const row = make("li", {}, make("time", { datetime: event.time }, clock(event.time)), make("span", { class: "gap" }, gap));
      row.append(make("b", {}, event.event.replaceAll("-", " ")), make("span", {}, words(event)));
      list.append(row);
      last = at;
    }
    return truncated ? [make("p", { class: "more" }, "It was tried so often that earlier attempts are not kept any more."), list] : [list];
  }
}

function words({ attempt, state, reason }) {
  const parts = [attempt && `attempt ${attempt}`, state?.toLowerCase(), reason];
  return parts.filter(Boolean).join(" · ");
}
