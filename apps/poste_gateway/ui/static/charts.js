// Small charts of the last minutes: one line each, with words beside it for those who can't see the picture.

import { make, say, set } from "./dom.js";

const SECONDS = 180;
const HEIGHT = 56;
const charts = new Set();
// Only what is in sight is drawn: there may be hundreds.
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) pictured.get(target)?.see(isIntersecting);
});
const pictured = new WeakMap();

/** One chart: a caption with its latest value, and its picture. */
export class Chart {
  #times = [];
  #values = [];
  #now = make("b");
  #most = make("span", { class: "most" });
  #plot = make("div", { class: "plot", role: "img" });
  #colour;
  #name;
  #write;
  #picture = null;
  #seen = false;

  /**
   * @param {string} name what it shows
   * @param {string} colour the CSS variable of its line
   * @param {function} write writes a value
   */
  constructor(name, colour, write) {
    this.#name = name;
    this.#colour = colour;
    this.#write = write;
    this.element = make("figure", {}, make("figcaption", {}, make("span", {}, `${name} `, this.#now), this.#most), this.#plot);
    new ResizeObserver(() => this.#resize()).observe(this.#plot);
    charts.add(this);
    pictured.set(this.#plot, this);
    sight.observe(this.#plot);
  }

  /** Takes note of whether it is in sight. */
  see(seen) {
    this.#seen = seen;
    if (!seen) return;
    this.#resize();
    this.draw();
  }

  /** Begins with what was before. */
  begin(times, values) {
    this.#times = [...times];
    this.#values = [...values];
  }

  /** Adds a value, null if it is not known, and draws. */
  add(time, value) {
    if (time > (this.#times.at(-1) ?? 0)) {
      this.#times.push(time);
      this.#values.push(value);
    }
    const old = this.#times.findIndex((one) => one >= time - SECONDS);
    this.#times.splice(0, old);
    this.#values.splice(0, old);
    const peak = Math.max(0, ...this.#values);
    const most = this.#write(peak);
    const now = value === null ? "?" : this.#write(value);
    say(this.#now, now);
    say(this.#most, peak ? `peak ${most}` : "");
    set(this.#plot, "aria-label", `${this.#name} over the last 3 minutes: now ${now}, at most ${most}`);
    this.draw();
  }

  /** Draws what there is. */
  draw() {
    if (this.#seen) this.#picture?.setData([this.#times, this.#values]);
  }

  /** Draws it in the colours that hold now. */
  repaint() {
    this.#picture?.destroy();
    this.#picture = null;
    this.#resize();
  }

  /** Lets go of it. */
  end() {
    charts.delete(this);
    sight.unobserve(this.#plot);
  }

  #resize() {
    const width = this.#plot.clientWidth;
    if (!width || !this.#seen) return;
    if (this.#picture) {
      this.#picture.setSize({ width, height: HEIGHT });
      return;
    }
    const style = getComputedStyle(document.documentElement);
    this.#picture = new uPlot(
      {
        width,
        height: HEIGHT,
        padding: [3, 0, 1, 0],
        legend: { show: false },
        cursor: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: {
          x: { range: (_, __, last) => [last - SECONDS, last] },
          y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] },
        },
        series: [
          {},
          {
            stroke: style.getPropertyValue(this.#colour),
            fill: style.getPropertyValue(`${this.#colour}-fill`),
            width: 2,
            points: { show: false },
          },
        ],
      },
      [this.#times, this.#values],
      this.#plot,
    );
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of charts) chart.repaint();
});
