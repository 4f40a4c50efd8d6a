// The newest tasks, whatever became of them.

import { broken, icon, keep, make, redraw, say, set } from "./dom.js";
import { duration, split } from "./text.js";

export const SHAPES = {
  QUEUED: "ring",
  RUNNING: "play",
  SUCCEEDED: "check",
  FAILED: "cross",
  CANCELLED: "dash",
  EXPIRED: "dash",
  DEAD: "warning",
};

/** The mark of a task's state: a shape and a word. */
export function mark() {
  return make("span", { class: "light" }, icon("ring"), make("span"));
}

/** Has a mark show a state. */
export function show(element, state) {
  set(element, "class", `light ${state.toLowerCase()}`);
  redraw(element.firstChild, SHAPES[state] ?? "ring");
  say(element.lastChild, state.toLowerCase());
}

/** The list of the newest tasks. */
export class Tasks {
  #open;

  /** @param {function} open shows a task's life */
  constructor(open) {
    this.#open = open;
  }

  show(snapshot, operator) {
    document.getElementById("tasks").hidden = !operator || !snapshot.tasks;
    if (!operator || !snapshot.tasks) return;
    const now = Date.parse(snapshot.time);
    const create = (task) => this.#row(task);
    const fill = (row, task) => {
      show(row.firstChild, task.state);
      const age = Math.max(0, (now - Date.parse(task.createTime)) / 1000);
      say(row.querySelector(".when"), `${duration(age)} ago${task.attempt > 1 ? ` · attempt ${task.attempt}` : ""}`);
    };
    keep(document.getElementById("tasks-list"), snapshot.tasks, (task) => task.id, create, fill);
    document.getElementById("tasks-empty").hidden = snapshot.tasks.length > 0;
  }

  #row(task) {
    const name = `${split(task.service)[1]}/${task.method}`;
    const id = make("button", { type: "button", class: "id", "aria-label": `History of ${name}, task ${task.id}` }, task.id);
    id.addEventListener("click", () => this.#open(task.id));
    return make("li", { class: "row task" }, mark(), make("span", { class: "what" }, ...broken(name)), make("span", { class: "when" }), id);
  }
}
