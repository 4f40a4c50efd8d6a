// A task's life: what it was called with, what happened to it, when, and what came of it.

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
  /** Whether to show what operators alone may see. */
  operator = false;

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
      const { call, now, events, truncated } = await this.#read(id);
      if (id !== this.#id) return;
      this.#seen = `${now.state} ${now.attempt}`;
      this.#body.replaceChildren(...this.#facts(now, call), ...this.#events(events, truncated));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (id === this.#id) this.#body.replaceChildren(make("p", { class: "note trouble" }, error.message));
    }
  }

  /** Reads all that there is; an operator is told more, in one answer. */
  async #read(id) {
    if (this.operator) {
      const call = await ask("GET", task(id, "call"));
      return { call, now: call.task, events: call.events, truncated: call.truncated };
    }
    const [now, history] = await Promise.all([ask("GET", task(id)), ask("GET", task(id, "history"))]);
    return { call: null, now, ...history };
  }

  #facts(now, call) {
    const state = mark();
    show(state, now.state);
    const facts = [
      ["Task", make("code", {}, now.id)],
      ["Method", `${now.service}/${now.method}`],
      ["State", state],
      [FINAL.includes(now.state) ? "Kept until" : "Given up at", now.expireTime && clock(now.expireTime)],
      ["Reason", now.reason],
      ["Error", now.error && `${now.error.code}: ${now.error.detail}`],
      ["Last error", now.lastError && `${now.lastError.code}: ${now.lastError.detail}`],
      ["Request", call && (call.request ? pretty(call.request) : (call.unreadable ?? "It is not kept any more."))],
      ["Masked", call?.masked.join(", ")],
      ["Headers", call && Object.keys(call.headers).length > 0 && pretty(call.headers)],
      ["Request id", call?.requestId && make("code", {}, call.requestId)],
      ["Response", now.response && pretty(now.response)],
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

/** JSON as it is read: in lines if it is long. It can be scrolled, so it can have the focus. */
function pretty(value) {
  const short = JSON.stringify(value);
  const text = short.length > 60 ? JSON.stringify(value, null, 2) : short;
  return make("pre", { tabindex: 0 }, make("code", {}, text));
}

function words({ attempt, state, reason, code }) {
  const parts = [attempt && `attempt ${attempt}`, state?.toLowerCase(), reason, code];
  return parts.filter(Boolean).join(" · ");
}
