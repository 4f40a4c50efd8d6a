// How names, times and figures are written.

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A number of seconds, short: `0.4 s`, `34 s`, `5 min`, `2 h 5 min`, `3 d`. */
export function duration(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 2 * MINUTE) return `${Math.round(seconds)} s`;
  if (seconds < 2 * HOUR) return `${Math.floor(seconds / MINUTE)} min`;
  if (seconds < 2 * DAY) return `${Math.floor(seconds / HOUR)} h ${Math.floor((seconds % HOUR) / MINUTE)} min`;
  return `${Math.floor(seconds / DAY)} d`;
}

/** A count, with its thousands apart. */
export function count(number) {
  return number.toLocaleString("en");
}

/** How many there are a second; a dash if that is unknown. */
export function rate(number) {
  if (number === null || number === undefined) return "–";
  return number > 0 && number < 10 ? number.toFixed(1) : count(Math.round(number));
}

/** A share of a whole: `0 %`, `0.3 %`, `12 %`. */
export function share(part) {
  const percent = 100 * part;
  return `${percent > 0 && percent < 10 ? percent.toFixed(1) : Math.round(percent)} %`;
}

/** How long an answer took: `0.8 ms`, `12 ms`, then as durations are written. */
export function latency(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.00995) return `${(1000 * seconds).toFixed(1)} ms`;
  return seconds < 0.9995 ? `${Math.round(1000 * seconds)} ms` : duration(seconds);
}

/** A number of bytes, short: `900 B`, `18.2 MB`. */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  for (; bytes >= 999.5 && unit < units.length - 1; unit += 1) bytes /= 1000;
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}

/** An instant on this browser's clock; with its day, if that is another. */
export function clock(time) {
  const at = new Date(time);
  const day = at.toDateString() === new Date().toDateString() ? "" : `${at.toLocaleDateString("sv")} `;
  return `${day}${at.toLocaleTimeString("sv")}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** A full name taken apart: `calculator.v1.` and `SumService`. */
export function split(name) {
  const dot = name.lastIndexOf(".") + 1;
  return [name.slice(0, dot), name.slice(dot)];
}

/** A word with its number: `1 service`, `2 services`. */
export function many(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}
