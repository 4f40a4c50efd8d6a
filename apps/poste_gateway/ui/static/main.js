// The page: follows the gateway's stream, and has each part of it shown.

import { token } from "./api.js";
import { Dead } from "./dead.js";
import { announce, say } from "./dom.js";
import { Finder } from "./finder.js";
import { History } from "./history.js";
import { Services } from "./services.js";
import { Stream } from "./stream.js";
import { Tasks } from "./tasks.js";

const STATES = { live: "live", lost: "connection lost, trying again", connecting: "connecting" };
const NEEDS = {
  "credentials-needed": "Tasks, dead letters and pausing are for operators: with their token.",
  "operators-only":
    "Tasks, dead letters and pausing are for operators: once this gateway is given a token for them (POSTE_OPERATOR_TOKEN_FILE).",
};
const find = (id) => document.getElementById(id);

// A link brings the token behind its #, which no server is sent, and no log has. It does not stay in the address either.
function takeToken() {
  const brought = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!brought) return false;
  token.set(brought);
  window.history.replaceState(null, "", location.pathname + location.search);
  return true;
}

let operator = false;
takeToken();
const history = new History();
const services = new Services(trouble);
const dead = new Dead((id) => history.open(id), trouble);
new Finder((id) => history.open(id));
const tasks = new Tasks((id) => history.open(id));

const stream = new Stream({
  hello(hello) {
    operator = hello.operator;
    history.operator = operator;
    find("operator").hidden = operator && !token.get();
    find("operator-form").hidden = operator || hello.needs !== "credentials-needed";
    find("operator-forget").hidden = !token.get();
    say(find("operator-why"), operator ? "This tab has the operators' token until it is closed." : (NEEDS[hello.needs] ?? ""));
  },
  past(past) {
    services.past = past;
  },
  snapshot(snapshot) {
    services.show(snapshot, operator);
    dead.show(snapshot, operator);
    tasks.show(snapshot, operator);
    history.show(snapshot);
    missing(snapshot.middleware);
    const clock = find("clock");
    clock.dateTime = snapshot.time;
    say(clock, new Date(snapshot.time).toLocaleTimeString("sv"));
  },
  state,
});

function state(name) {
  if (name === "locked") {
    find("operator").hidden = find("operator-form").hidden = false;
    say(find("operator-why"), "This gateway shows itself to who has a key: with the role read, or an operator's.");
    return;
  }
  if (name === "refused") {
    trouble("The operators' token is wrong.");
    find("token").focus();
    return;
  }
  const connection = find("connection");
  if (connection.dataset.state === name) return;
  connection.dataset.state = name;
  say(connection, STATES[name]);
  find("main").classList.toggle("stale", name !== "live");
}

/** Shows what went wrong until something goes well. */
function trouble(text) {
  find("trouble").dataset.own = text ? "yes" : "";
  say(find("trouble"), text);
  find("trouble").hidden = !text;
}

function missing(there) {
  if (find("trouble").dataset.own) return;
  const text = there ? "" : "The middleware or its Redis is away: what waits is safe, and can't be counted now.";
  say(find("trouble"), text);
  find("trouble").hidden = there;
}

find("operator-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(find("token").value.trim());
  find("token").value = "";
  trouble("");
  stream.restart();
  announce("The token is tried.");
});

addEventListener("hashchange", () => {
  if (takeToken()) stream.restart();
});

find("operator-forget").addEventListener("click", () => {
  token.forget();
  stream.restart();
});

