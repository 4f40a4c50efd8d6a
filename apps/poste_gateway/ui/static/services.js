// The services: a light, direct calls and the queue in figures, two charts, and a button that pauses. What is away
// comes first.

import { ask, queue, Refused } from "./api.js";
import { Chart } from "./charts.js";
import { announce, confirm, icon, keep, make, redraw, say, set } from "./dom.js";
import { count, duration, latency, many, rate, share, size, split } from "./text.js";

// Each light has a shape of its own: not all users see the colours.
const SHAPES = { up: "dot", busy: "half", away: "ring", hung: "warning", unlisted: "dash" };
const MEANINGS = {
  up: "Calls are answered directly.",
  busy: "As many calls as it takes are under way; others wait.",
  away: "No replica is there; calls wait for it.",
  hung: "A replica is there and does not answer; calls wait.",
  unlisted: "It is not in the catalogue any more.",
};
const STILL = "Kept results take all the room that the queue may have: until there is some, no call is started.";
const UNTOLD = "So many ends could not be told to their clients' URLs: poste undelivered says why.";
const DIRECT = ["Direct/s", "Errors", "p99", "Replicas"];
const QUEUE = ["Running", "Delayed", "Dead", "Kept", "Queued/s", "Done/s", "Empty in"];
// What an operator is to see first.
const URGENCY = ["hung", "away", "busy", "up", "unlisted"];
// From so many services on they can be filtered by name; and so many are shown at first.
const MANY = 7;
const FIRST = 24;

// Of what a queue may hold: from here on an operator is to see to it, as the alert has it.
const NEARLY_FULL = 0.8;

class Card {
  #name;
  #trouble;
  #light = make("span", { class: "light" }, icon("ring"), make("span"));
  #paused = make("span", { class: "light paused", hidden: true }, icon("bars"), make("span", {}, "paused"));
  #still = make("span", { class: "light still", hidden: true, title: STILL }, icon("bars"), make("span", {}, "stands still"));
  #untold = make("span", { class: "light still", hidden: true, title: UNTOLD }, icon("warning"), make("span"));
  #waiting = new Chart("Waiting", "--waiting", count);
  #age = new Chart("Oldest", "--age", duration);
  #direct = DIRECT.map((name) => [make("dt", {}, name), make("dd")]);
  #figures = QUEUE.map((name) => [make("dt", {}, name), make("dd")]);
  #button = make("button", { type: "button" });
  #drop = make("button", { type: "button", hidden: true }, "Drop results");
  #kept = 0;
  #last = null;

  constructor(name, past, trouble) {
    this.#name = name;
    this.#trouble = trouble;
    const [pack, short] = split(name);
    const heading = make("h3", {}, make("span", { class: "pack" }, pack), make("wbr"), short);
    this.element = make(
      "li",
      { class: "card" },
      make(
        "div",
        { class: "head" },
        heading,
        make("div", { class: "lights" }, this.#light, this.#paused, this.#still, this.#untold),
      ),
      make("dl", { class: "direct" }, ...this.#direct.map((pair) => make("div", {}, ...pair))),
      make("div", { class: "charts" }, this.#waiting.element, this.#age.element),
      make("dl", {}, ...this.#figures.map((pair) => make("div", {}, ...pair))),
      make("div", { class: "verbs" }, this.#button, this.#drop),
    );
    set(this.#drop, "aria-label", `Drop results of ${name}`);
    this.#drop.addEventListener("click", () => this.#purge());
    this.#button.addEventListener("click", () => this.#switch());
    const before = past.services[name];
    if (before) {
      this.#waiting.begin(past.times, before.waiting);
      this.#age.begin(past.times, before.waiting.map((one, index) => (one === null ? null : before.age[index] ?? 0)));
    }
  }

  fill(service, time, operator) {
    const { light, replicas, direct, figures } = service;
    this.#announceState(light, figures);
    set(this.element, "data-light", light);
    set(this.#light, "class", `light ${light}`);
    set(this.#light, "title", MEANINGS[light]);
    redraw(this.#light.firstChild, SHAPES[light]);
    say(this.#light.lastChild, light);
    this.#paused.hidden = !figures?.paused;
    this.#still.hidden = !figures?.standsStill;
    this.#untold.hidden = !figures?.undelivered;
    say(this.#untold.lastChild, `${count(figures?.undelivered ?? 0)} undelivered`);
    this.#waiting.add(time, figures && figures.queued + figures.delayed);
    this.#age.add(time, figures && (figures.oldestAgeSeconds ?? 0));
    const [calls, errors, slowest, ready] = this.#direct.map((pair) => pair[1]);
    say(calls, rate(direct?.rate));
    say(errors, direct?.rate ? share(direct.errorRate / direct.rate) : "–");
    set(errors.parentElement, "class", direct?.errorRate ? "bad" : null);
    say(slowest, latency(direct?.p99Seconds));
    const [running, delayed, dead, kept, into, out, eta] = this.#figures.map((pair) => pair[1]);
    for (const [cell, key] of [[running, "running"], [delayed, "delayed"], [dead, "dead"], [kept, "kept"]]) {
      say(cell, figures ? count(figures[key]) : "?");
    }
    const later = figures?.scheduled && `${count(figures.scheduled)} more are not to run yet: their clients want it so.`;
    set(delayed.parentElement, "title", later || null);
    set(dead.parentElement, "class", figures?.dead ? "bad" : null);
    // What the queue holds takes room in the store; at as much as it may, no more calls are kept.
    const full = figures && figures.heldBytes > NEARLY_FULL * figures.maxHeldBytes;
    set(kept.parentElement, "class", full ? "bad" : null);
    const may = figures && `The queue holds ${size(figures.heldBytes)} of the ${size(figures.maxHeldBytes)} that it may.`;
    set(kept.parentElement, "title", may);
    say(ready, `${replicas.ready} of ${replicas.known}`);
    say(into, rate(figures?.inRate));
    say(out, rate(figures?.outRate));
    say(eta, figures?.etaSeconds ? duration(figures.etaSeconds) : "–");
    this.#button.hidden = !operator;
    this.#kept = figures?.kept ?? 0;
    // Not while it has the focus: a keyboard user would be thrown back to the top.
    this.#drop.hidden = !operator || (!this.#kept && document.activeElement !== this.#drop);
    if (figures) {
      const verb = figures.paused ? "Resume" : "Pause";
      say(this.#button, verb);
      set(this.#button, "aria-label", `${verb} ${this.#name}`);
    }
    set(this.#button, "aria-disabled", figures ? null : "true");
  }

  end() {
    this.#waiting.end();
    this.#age.end();
  }

  #announceState(light, figures) {
    const now = { light, paused: figures?.paused ?? this.#last?.paused, still: figures?.standsStill ?? this.#last?.still };
    if (this.#last && now.light !== this.#last.light) announce(`${split(this.#name)[1]} is ${light}`);
    else if (this.#last && now.paused !== this.#last.paused) {
      announce(`${split(this.#name)[1]} is ${now.paused ? "paused" : "not paused any more"}`);
    } else if (this.#last && now.still !== this.#last.still) {
      announce(`${split(this.#name)[1]} ${now.still ? "stands still" : "goes on"}`);
    }
    this.#last = now;
  }

  async #purge() {
    const title = `Drop ${many(this.#kept, "kept result")} of ${this.#name}?`;
    const text = "Clients that have not read their results yet get: gone. Results of the last minute stay.";
    if (!(await confirm(title, text, "Drop them"))) return;
    try {
      const { purged } = await ask("POST", queue(this.#name, "purge-ended"));
      this.#trouble("");
      announce(`Dropped ${many(purged, "result")}`);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#trouble(`Results of ${this.#name} can't be dropped: ${error.message}`);
    }
  }

  async #switch() {
    if (this.#button.ariaDisabled === "true") return;
    const verb = this.#paused.hidden ? "pause" : "resume";
    this.#button.ariaDisabled = "true";
    try {
      await ask("POST", queue(this.#name, verb));
      this.#trouble("");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#trouble(`${this.#name} can't be ${verb}d: ${error.message}`);
    } finally {
      this.#button.ariaDisabled = null;
    }
  }
}

/** All the cards, and the line that sums them up. */
export class Services {
  #cards = new Map();
  #list = document.getElementById("services-list");
  #text = document.getElementById("services-text");
  #order = new Map();
  #all = false;
  #snapshot = null;
  #operator = false;
  #trouble;
  past = { times: [], services: {} };

  /** @param {function} trouble shows what went wrong, or nothing */
  constructor(trouble) {
    this.#trouble = trouble;
    this.#text.addEventListener("input", () => this.#draw());
    document.getElementById("services-all").addEventListener("click", () => {
      this.#all = true;
      this.#draw();
      this.#list.children[FIRST]?.querySelector("button")?.focus();
    });
  }

  show(snapshot, operator) {
    this.#snapshot = snapshot;
    this.#operator = operator;
    this.#draw();
    document.getElementById("services-empty").hidden = snapshot.services.length > 0;
    document.getElementById("services-filters").hidden = snapshot.services.length < MANY && !this.#text.value;
    const covers = document.getElementById("services-cover");
    covers.hidden = snapshot.services.length === 0;
    say(covers, `Direct calls: those of this gateway, ${snapshot.gateway}, in the last 10 s. Queues: of all gateways.`);
    this.#sumUp(snapshot);
  }

  #draw() {
    const snapshot = this.#snapshot;
    if (!snapshot) return;
    const text = this.#text.value.trim().toLowerCase();
    const meant = this.#sorted(snapshot.services).filter(({ name }) => name.toLowerCase().includes(text));
    const shown = this.#all ? meant : meant.slice(0, FIRST);
    const time = Date.parse(snapshot.time) / 1000;
    const create = ({ name }) => {
      this.#cards.get(name)?.end();
      const card = new Card(name, this.past, this.#trouble);
      this.#cards.set(name, card);
      return card.element;
    };
    const fill = (_, service) => this.#cards.get(service.name).fill(service, time, this.#operator);
    keep(this.#list, shown, (service) => service.name, create, fill);
    const more = meant.length - shown.length;
    document.getElementById("services-more").hidden = !more;
    say(document.getElementById("services-more-text"), `and ${count(more)} more`);
  }

  /** What needs attention first. Under a pointer or the focus the order stays: a button would move away from it. */
  #sorted(services) {
    const held = this.#list.matches(":hover, :focus-within");
    if (!held) {
      const rank = ({ light, figures }) => [
        figures?.standsStill ? 0 : URGENCY.indexOf(light),
        figures?.dead || figures?.paused || figures?.undelivered ? 0 : 1,
      ];
      const ranked = services.map((service) => [rank(service), service]);
      ranked.sort(([[light, rest], a], [[other, more], b]) => light - other || rest - more || (a.name < b.name ? -1 : 1));
      this.#order = new Map(ranked.map(([, service], place) => [service.name, place]));
    }
    const place = ({ name }) => this.#order.get(name) ?? this.#order.size;
    return [...services].sort((a, b) => place(a) - place(b));
  }

  #sumUp({ services, middleware }) {
    const lights = Object.keys(SHAPES)
      .map((light) => [light, services.filter((service) => service.light === light).length])
      .filter(([, number]) => number)
      .map(([light, number]) => `${number} ${light}`);
    const figures = services.map((service) => service.figures).filter(Boolean);
    const sum = (key) => figures.reduce((total, one) => total + one[key], 0);
    const waiting = sum("queued") + sum("delayed");
    const oldest = Math.max(0, ...figures.map((one) => one.oldestAgeSeconds ?? 0));
    const age = waiting ? `, the oldest for ${duration(oldest)}` : "";
    const [dead, untold] = [sum("dead"), sum("undelivered")];
    const link = document.getElementById("summary-dead");
    link.hidden = !this.#operator || !middleware || !dead;
    say(link, many(dead, "dead letter"));
    const last = link.hidden ? `${count(dead)} dead` : "";
    const told = untold ? `${count(untold)} undelivered · ` : "";
    const rest = middleware ? ` · ${count(waiting)} waiting${age} · ${told}${last}` : "";
    const states = lights.length ? `: ${lights.join(", ")}` : "";
    say(document.getElementById("summary-text"), `${many(services.length, "service")}${states}${rest}`);
    const worst = services.filter((service) => !["up", "unlisted"].includes(service.light)).length;
    document.title = worst ? `(${worst} not up) Poste` : "Poste";
  }
}
