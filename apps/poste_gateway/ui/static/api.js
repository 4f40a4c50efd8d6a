// Asks the gateway for what is not in the stream: what operators do, what is dead, a task's life.

const KEY = "poste.operators-token";

/** The operators' token, while this tab is open; empty if none was given. */
export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

/** What shows that this tab is an operator's. */
export function credentials() {
  const text = token.get();
  return text ? { Authorization: `Bearer ${text}` } : {};
}

/** The gateway said no, or nothing; the message is for people. */
export class Refused extends Error {}

/** Sends one request, and returns the JSON of its answer. */
export async function ask(verb, path) {
  let response;
  let document;
  try {
    response = await fetch(path, { method: verb, headers: credentials(), cache: "no-store" });
    document = await response.json();
  } catch {
    throw new Refused("The gateway does not answer.");
  }
  if (!response.ok) throw new Refused(document.detail ?? document.title ?? `HTTP ${response.status}`);
  return document;
}

/** The path of a queue, or of something behind it. */
export function queue(name, rest) {
  return `v1/queues/${encodeURIComponent(name)}/${rest}`;
}

/** Has a verb done to the tasks of a queue that a query matches, page after page; returns the sum of what is counted. */
export async function askMany(name, verb, query, counted) {
  let sum = 0;
  let pageToken = "";
  do {
    const answer = await ask("POST", queue(name, `${verb}?${new URLSearchParams({ ...query, ...(pageToken && { pageToken }) })}`));
    sum += answer[counted];
    pageToken = answer.nextPageToken;
  } while (pageToken);
  return sum;
}

/** The path of a task, or of something behind it. */
export function task(id, rest = "") {
  return `v1/tasks/${encodeURIComponent(id)}${rest && `/${rest}`}`;
}
