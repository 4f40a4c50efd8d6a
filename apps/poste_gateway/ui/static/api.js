// Asks the gateway for what is not in the stream: what operators do, what is dead, a task's life; and signs in and out.

/** The gateway said no, or nothing; the message is for people. */
export class Refused extends Error {}

/**
 * Sends one request, and returns the JSON of its answer, null if it has none. The browser shows by a cookie, which no
 * script can read, whose session this is.
 */
export async function ask(verb, path, body) {
  let response;
  let document;
  try {
    response = await fetch(path, { method: verb, body: body && JSON.stringify(body), cache: "no-store" });
    document = JSON.parse((await response.text()) || "null");
  } catch {
    throw new Refused("The gateway does not answer.");
  }
  if (!response.ok) throw new Refused(document.detail ?? document.title ?? `HTTP ${response.status}`);
  return document;
}

/** Begins a session: with a key or the operators' token, `{ key }`, or with the code of a link, `{ code }`. */
export const signIn = (given) => ask("POST", "ui/session", given);

/** Ends it in this browser. */
export const signOut = () => ask("DELETE", "ui/session");

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
