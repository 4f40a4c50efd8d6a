// The dead letters: what Poste gave up, why, and a button that has it run again.

import { ask, queue, Refused, task } from "./api.js";
import { announce, confirm, keep, make, say, set } from "./dom.js";
import { clock, count, many, split } from "./text.js";

const PAGE = 25;
// How old a list may be whose length says nothing: some may have gone, and as many have come.
const LIST_AGE = 10000;
const REASONS = {
  attempts: "failed at every attempt",
  crashes: "its service crashed each time",
  "outcome-unknown": "may have run: no answer came",
  "response-too-large": "ran, and its answer is too large to be kept",
  "schema-changed": "held aside: its method's schema changed",
  damaged: "its record can't be read",
};

class DeadQueue {
  #name;
  #open;
  #trouble;
  #count = make("span", { class: "count" });
  #list = make("ul", { class: "rows", role: "list" });
  #more = make("p", { class: "more", hidden: true });
  #tasks = [];
  #total = 0;
  #fetched = { total: -1, time: 0 };
  #fetching = false;

  constructor(name, open, trouble) {
    this.#name = name;
    this.#open = open;
    this.#trouble = trouble;
    const [pack, short] = split(name);
    const all = make("button", { type: "button", "aria-label": `Replay all of ${name}` }, "Replay all");
    all.addEventListener("click", () => this.#replayAll());
    const title = make("h3", {}, make("span", { class: "pack" }, pack), make("wbr"), short, " ", this.#count);
    this.element = make("section", { class: "card dead" }, make("div", { class: "head" }, title, all), this.#list, this.#more);
  }

  /** Takes note of how many there are; asks which, if those that are shown may be others. */
  async update({ dead: total, heldAside: held }) {
    this.#total = total;
    say(this.#count, held ? `${count(total)}, ${count(held)} held aside` : count(total));
    const old = Date.now() - this.#fetched.time > LIST_AGE;
    if (!this.#fetching && (old || total !== this.#fetched.total)) await this.refresh();
    else this.#sayMore();
  }

  /** Asks which there are. */
  async refresh() {
    this.#fetching = true;
    this.#fetched = { total: this.#total, time: Date.now() };
    try {
      this.#tasks = (await ask("GET", queue(this.#name, `dead?pageSize=${PAGE}`))).tasks;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return;
    } finally {
      this.#fetching = false;
    }
    keep(this.#list, this.#tasks, (one) => one.id, (one) => this.#row(one), () => {});
    this.#sayMore();
  }

  #sayMore() {
    const more = this.#total - this.#tasks.length;
    this.#more.hidden = more <= 0 || this.#tasks.length === 0;
    say(this.#more, `and ${count(more)} more: poste dead ${this.#name}`);
  }

  #row(one) {
    const name = `${split(one.service)[1]}/${one.method}`;
    const id = make("button", { type: "button", class: "id", "aria-label": `History of ${name}, task ${one.id}` }, one.id);
    id.addEventListener("click", () => this.#open(one.id));
    const replay = make("button", { type: "button", "aria-label": `Replay ${name}, task ${one.id}` }, "Replay");
    replay.addEventListener("click", () => this.#replay(one, replay));
    return make(
      "li",
      { class: "row dead" },
      make("span", { class: "what" }, make("b", {}, one.method), " ", REASONS[one.reason] ?? one.reason),
      make("span", { class: "why" }, one.error?.detail ?? ""),
      make("span", { class: "when" }, `attempt ${one.attempt} · died ${clock(one.dieTime).slice(0, -4)}`),
      id,
      replay,
    );
  }

  async #replay(one, button) {
    if (button.ariaDisabled === "true") return;
    const warnings = {
      "outcome-unknown": "Its call may have run already, and its method is not declared idempotent. Find out first.",
      "response-too-large": "Its call has run already. Mend first what makes its answer so large.",
    };
    const text = warnings[one.reason];
    if (text) {
      if (!(await confirm("Run it again?", text, "Replay it"))) return;
    }
    button.ariaDisabled = "true";
    try {
      await ask("POST", task(one.id, "replay"));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      button.ariaDisabled = null;
      this.#trouble(`The task can't be replayed: ${error.message}`);
      return;
    }
    this.#trouble("");
    announce(`Replayed ${one.method}, task ${one.id.slice(0, 8)}`);
    this.#leave(button);
    await this.refresh();
  }

  async #replayAll() {
    const text = "What may have run already is run again, too.";
    if (!(await confirm(`Replay ${many(this.#total, "dead letter")} of ${this.#name}?`, text, "Replay all"))) return;
    try {
      const { replayed } = await ask("POST", queue(this.#name, "replay"));
      this.#trouble("");
      announce(`Replayed ${many(replayed, "dead letter")}`);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#trouble(`They can't be replayed: ${error.message}`);
      return;
    }
    document.getElementById("dead-title").focus();
    await this.refresh();
  }

  /** Moves the focus from a row that goes to the next one, or to the heading. */
  #leave(button) {
    const row = button.closest("li");
    const next = row.nextElementSibling ?? row.previousElementSibling;
    (next?.lastElementChild ?? document.getElementById("dead-title")).focus();
  }
}

/** What is dead, queue by queue. */
export class Dead {
  #queues = new Map();
  #open;
  #trouble;
  #last = null;

  /**
   * @param {function} open shows a task's life
   * @param {function} trouble shows what went wrong, or nothing
   */
  constructor(open, trouble) {
    this.#open = open;
    this.#trouble = trouble;
  }

  show(snapshot, operator) {
    document.getElementById("dead").hidden = !operator;
    if (!operator || !snapshot.middleware) return;
    const dead = snapshot.services.filter((service) => service.figures?.dead);
    const create = ({ name }) => {
      const one = new DeadQueue(name, this.#open, this.#trouble);
      this.#queues.set(name, one);
      return one.element;
    };
    const fill = (_, { name, figures }) => this.#queues.get(name).update(figures);
    keep(document.getElementById("dead-queues"), dead, (service) => service.name, create, fill);
    document.getElementById("dead-empty").hidden = dead.length > 0;
    const total = dead.reduce((sum, service) => sum + service.figures.dead, 0);
    if (this.#last !== null && total > this.#last) announce(`${many(total - this.#last, "new dead letter")}`);
    this.#last = total;
    set(document.getElementById("dead"), "data-count", total);
  }
}
