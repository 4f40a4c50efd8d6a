// The dead letters: what Poste gave up, in groups of one method and one reason, and buttons that have it run again.

import { ask, askMany, queue, Refused, task } from "./api.js";
import { announce, broken, confirm, keep, make, say, set } from "./dom.js";
import { clock, count, many, split } from "./text.js";

// How many groups are shown at first, and how many letters of each.
const GROUPS = 20;
const NEWEST = 3;
// From so many groups on they can be filtered.
const MANY = 4;
// How old what is known of a queue may be: some may have gone, and as many have come.
const AGE = 10000;
const REASONS = {
  attempts: "failed at every attempt",
  crashes: "its service crashed each time",
  "outcome-unknown": "may have run: no answer came",
  "response-too-large": "ran, and its answer is too large to be kept",
  "schema-changed": "held aside: its method's schema changed",
  damaged: "its record can't be read",
};
// What an operator is to think of before a replay, of any number of letters.
const WARNINGS = {
  "outcome-unknown": "The call may have run already, and its method is not declared idempotent. Find out first.",
  "response-too-large": "The call has run already. Mend first what makes its answer so large.",
};
const AS_IS = "It is run by the schema of today, whatever its client meant by that of then.";
const HELD = "schema-changed";

/** One group: all that died of one method for one reason. */
class Group {
  #dead;
  #group;
  #count = make("span", { class: "count" });
  #when = make("span", { class: "when" });
  #replay = make("button", { type: "button" });
  #asIs = make("button", { type: "button", hidden: true });
  #list = make("ul", { class: "rows", role: "list" });
  #more = make("p", { class: "more" });

  constructor(dead, group) {
    this.#dead = dead;
    const [pack, short] = split(group.service);
    const title = make("h3", {}, make("span", { class: "pack" }, pack), make("wbr"), ...broken(`${short}/${group.method} `), this.#count);
    this.element = make(
      "li",
      { class: "card group" },
      make("div", { class: "head" }, title, make("div", { class: "verbs" }, this.#replay, this.#asIs)),
      make("p", {}, make("b", {}, REASONS[group.reason] ?? group.reason), " ", this.#when),
      this.#list,
      this.#more,
    );
    this.#replay.addEventListener("click", () => this.#replayAll(this.#replay, false));
    this.#asIs.addEventListener("click", () => this.#replayAll(this.#asIs, true));
  }

  fill(group) {
    this.#group = group;
    say(this.#count, count(group.count));
    const which = `${split(group.service)[1]}/${group.method}, ${REASONS[group.reason] ?? group.reason}`;
    for (const [button, words] of [[this.#replay, ""], [this.#asIs, " as they are"]]) {
      say(button, `Replay all ${count(group.count)}${words}`);
      set(button, "aria-label", `Replay all${words}: ${which}`);
    }
    // A single letter has its own buttons.
    this.#replay.hidden = group.count === 1;
    this.#asIs.hidden = group.count === 1 || group.reason !== HELD;
    say(this.#when, group.newest.length ? `the newest ${clock(group.newest[0].dieTime).slice(0, -4)}` : "");
    keep(this.#list, group.newest, (one) => one.id, (one) => this.#row(one), () => {});
    const more = group.count - group.newest.length;
    this.#more.hidden = more <= 0;
    say(this.#more, `and ${count(more)} older: poste dead ${group.service} --method ${group.method} --reason ${group.reason}`);
  }

  #row(one) {
    const name = `${split(one.service)[1]}/${one.method}`;
    const id = make("button", { type: "button", class: "id", "aria-label": `History of ${name}, task ${one.id}` }, one.id);
    id.addEventListener("click", () => this.#dead.open(one.id));
    const verbs = make("div", { class: "verbs" }, this.#one(one, "Replay", name, false));
    if (one.reason === HELD) verbs.append(this.#one(one, "Replay as it is", name, true));
    return make(
      "li",
      { class: "row dead" },
      make("span", { class: "why" }, one.error?.detail ?? ""),
      make("span", { class: "when" }, `attempt ${one.attempt} · died ${clock(one.dieTime).slice(0, -4)}`),
      id,
      verbs,
    );
  }

  #one(one, words, name, asIs) {
    const button = make("button", { type: "button", "aria-label": `${words} ${name}, task ${one.id}` }, words);
    button.addEventListener("click", () => this.#replayOne(one, button, asIs));
    return button;
  }

  async #replayOne(one, button, asIs) {
    if (button.ariaDisabled === "true") return;
    const text = asIs ? AS_IS : WARNINGS[one.reason];
    if (text && !(await confirm("Run it again?", text, "Replay it"))) return;
    const done = await this.#dead.attempt(button, () => ask("POST", task(one.id, asIs ? "replay?asIs=true" : "replay")));
    if (!done) return;
    announce(`Replayed ${one.method}, task ${one.id.slice(0, 8)}`);
    leave(button);
    await this.#dead.refresh(one.service);
  }

  /** Counts them first: what is confirmed is what there is now, not what there was at the last look. */
  async #replayAll(button, asIs) {
    const { service, method, reason } = this.#group;
    const which = { method, reason };
    if (button.ariaDisabled === "true") return;
    const found = await this.#dead.attempt(button, () => askMany(service, "replay", { ...which, dryRun: "true" }, "matched"));
    if (found === null) return;
    const title = `Replay ${many(found, "dead letter")} of ${split(service)[1]}/${method}?`;
    const text = asIs ? AS_IS : (WARNINGS[reason] ?? `Their reason: ${REASONS[reason] ?? reason}. They are run again as if they were new.`);
    if (!(await confirm(title, text, `Replay ${count(found)}`))) return;
    const query = asIs ? { ...which, asIs: "true" } : which;
    const replayed = await this.#dead.attempt(button, () => askMany(service, "replay", query, "replayed"));
    if (replayed === null) return;
    announce(`Replayed ${many(replayed, "dead letter")}`);
    document.getElementById("dead-title").focus();
    await this.#dead.refresh(service);
  }
}

/** Moves the focus from a row that goes to the next one, or to the heading. */
function leave(button) {
  const row = button.closest("li.row");
  const next = row.nextElementSibling ?? row.previousElementSibling;
  (next?.querySelector(".verbs button") ?? document.getElementById("dead-title")).focus();
}

/** What is dead in all queues. */
export class Dead {
  #open;
  #trouble;
  #known = new Map();
  #elements = new Map();
  #asking = false;
  #all = false;
  #last = null;
  #list = document.getElementById("dead-groups");
  #text = document.getElementById("dead-text");
  #reason = document.getElementById("dead-reason");

  /**
   * @param {function} open shows a task's life
   * @param {function} trouble shows what went wrong, or nothing
   */
  constructor(open, trouble) {
    this.#open = open;
    this.#trouble = trouble;
    for (const [name, words] of Object.entries(REASONS)) this.#reason.append(make("option", { value: name }, words));
    this.#text.addEventListener("input", () => this.#draw());
    this.#reason.addEventListener("change", () => this.#draw());
    document.getElementById("dead-all").addEventListener("click", () => {
      this.#all = true;
      this.#draw();
      this.#list.children[GROUPS]?.querySelector("button")?.focus();
    });
  }

  /** Shows a task's life. */
  open(id) {
    this.#open(id);
  }

  show(snapshot, operator) {
    document.getElementById("dead").hidden = !operator;
    if (!operator || !snapshot.middleware) return;
    const totals = new Map(
      snapshot.services.filter((service) => service.figures?.dead).map(({ name, figures }) => [name, figures.dead]),
    );
    for (const name of this.#known.keys()) if (!totals.has(name)) this.#known.delete(name);
    for (const [name, total] of totals) {
      const known = this.#known.get(name);
      if (known) known.total = total;
      else this.#known.set(name, { total, counted: -1, time: 0, groups: [], uncounted: 0 });
    }
    const total = [...totals.values()].reduce((sum, one) => sum + one, 0);
    if (this.#last !== null && total > this.#last) announce(`${many(total - this.#last, "new dead letter")}`);
    this.#last = total;
    set(document.getElementById("dead"), "data-count", total);
    this.#draw();
    this.#ask();
  }

  /** Does something; shows why it can't be done, and returns null then. */
  async attempt(button, act) {
    button.ariaDisabled = "true";
    try {
      const done = await act();
      this.#trouble("");
      return done;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#trouble(`That can't be replayed: ${error.message}`);
      return null;
    } finally {
      button.ariaDisabled = null;
    }
  }

  /** Asks what there is in a queue, and shows it. */
  async refresh(name) {
    const known = this.#known.get(name);
    if (!known) return;
    Object.assign(known, { counted: known.total, time: Date.now() });
    try {
      const { groups, uncounted } = await ask("GET", queue(name, `dead-groups?newest=${NEWEST}`));
      known.groups = groups.map((group) => ({ ...group, service: name }));
      known.uncounted = uncounted;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return;
    }
    this.#draw();
  }

  /** Asks for the queues whose figures changed, and the old ones: one after the other, for there may be hundreds. */
  async #ask() {
    if (this.#asking) return;
    this.#asking = true;
    try {
      for (const [name, known] of [...this.#known]) {
        if (known.total !== known.counted || Date.now() - known.time > AGE) await this.refresh(name);
      }
    } finally {
      this.#asking = false;
    }
  }

  #draw() {
    const found = [...this.#known.values()].flatMap(({ groups }) => groups);
    const died = (group) => group.newest[0]?.dieTime ?? "";
    const text = this.#text.value.trim().toLowerCase();
    const meant = found
      .filter((one) => `${one.service}/${one.method}`.toLowerCase().includes(text))
      .filter((one) => !this.#reason.value || one.reason === this.#reason.value)
      .sort((a, b) => (died(a) < died(b) ? 1 : -1));
    const shown = this.#all ? meant : meant.slice(0, GROUPS);
    const key = (one) => `${one.service}/${one.method} ${one.reason}`;
    const create = (one) => {
      const group = new Group(this, one);
      this.#elements.set(key(one), group);
      return group.element;
    };
    keep(this.#list, shown, key, create, (_, one) => this.#elements.get(key(one)).fill(one));
    const filters = document.getElementById("dead-filters");
    filters.hidden = found.length < MANY && !text && !this.#reason.value;
    const empty = document.getElementById("dead-empty");
    empty.hidden = shown.length > 0;
    say(empty, this.#known.size === 0 ? "Nothing is dead." : found.length ? "No dead letter is like that." : "One moment …");
    this.#sayMore(meant.length - shown.length);
  }

  #sayMore(groups) {
    const uncounted = [...this.#known.values()].reduce((sum, known) => sum + known.uncounted, 0);
    const parts = [groups && `and ${many(groups, "group")} more`, uncounted && `${count(uncounted)} older letters are not counted here`];
    document.getElementById("dead-more").hidden = !groups && !uncounted;
    say(document.getElementById("dead-more-text"), parts.filter(Boolean).join("; "));
    document.getElementById("dead-all").hidden = !groups;
  }
}
