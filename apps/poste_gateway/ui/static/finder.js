// Finds a task by its id: typed, or pasted with the path that a client was given.

/** The form in the head. */
export class Finder {
  /** @param {function} open shows a task's life */
  constructor(open) {
    const form = document.getElementById("find-task");
    const input = document.getElementById("task-id");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const id = input.value.trim().split("/").pop();
      if (id) open(id);
    });
  }
}
