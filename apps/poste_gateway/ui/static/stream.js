// Follows the gateway's stream, for ever. By fetch, not EventSource, which does not tell why the gateway refuses it.

const FIRST_PAUSE = 300;
const LONGEST_PAUSE = 5000;
// The gateway gives a sign of life every five seconds.
const SILENCE = 15000;

export class Stream {
  #handlers;
  #attempt = new AbortController();
  #restarted = false;

  /** @param {object} handlers by the events' names; `state` is called with `live`, `lost`, `locked` or `forbidden` */
  constructor(handlers) {
    this.#handlers = handlers;
    this.#run();
  }

  /** Connects anew, as an operator or a guest as the browser is now. */
  restart() {
    this.#restarted = true;
    this.#attempt.abort();
  }

  async #run() {
    let pause = FIRST_PAUSE;
    for (;;) {
      this.#attempt = new AbortController();
      this.#restarted = false;
      try {
        await this.#follow(() => {
          pause = FIRST_PAUSE;
        });
      } catch {
        // Whatever it was, the next attempt is the answer.
      }
      if (this.#restarted) continue;
      this.#handlers.state("lost");
      await this.#rest(pause * (0.75 + Math.random() / 2));
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
  }

  async #follow(begun) {
    const watchdog = new Watchdog(() => this.#attempt.abort());
    try {
      const response = await fetch("ui/events", { cache: "no-store", signal: this.#attempt.signal });
      if (response.status === 401) this.#handlers.state("locked");
      if (response.status === 403) this.#handlers.state("forbidden");
      if (!response.ok) return;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        watchdog.pat();
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) this.#take(block, begun);
      }
    } finally {
      watchdog.end();
    }
  }

  #take(block, begun) {
    const fields = Object.fromEntries(
      block.split("\n").filter((line) => !line.startsWith(":")).map((line) => line.split(/: (.*)/s, 2)),
    );
    if (!fields.event) return;
    if (fields.event === "hello") {
      begun();
      this.#handlers.state("live");
    }
    this.#handlers[fields.event]?.(JSON.parse(fields.data));
  }

  #rest(milliseconds) {
    const { signal } = this.#attempt;
    // An attempt that failed by being given up is no reason to hurry.
    const waiting = signal.aborted ? (this.#attempt = new AbortController()).signal : signal;
    return new Promise((resolve) => {
      setTimeout(resolve, milliseconds);
      waiting.addEventListener("abort", resolve, { once: true });
    });
  }
}

class Watchdog {
  #timer;
  #bark;

  constructor(bark) {
    this.#bark = bark;
    this.pat();
  }

  pat() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#bark, SILENCE);
  }

  end() {
    clearTimeout(this.#timer);
  }
}
