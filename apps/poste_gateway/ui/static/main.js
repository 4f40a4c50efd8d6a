// The page: follows the gateway's stream, and has each part of it shown.

import { signIn, signOut } from "./api.js";
import { Dead } from "./dead.js";
import { announce, say } from "./dom.js";
import { Finder } from "./finder.js";
import { History } from "./history.js";
import { Services } from "./services.js";
import { Stream } from "./stream.js";
import { Tasks } from "./tasks.js";

const STATES = { live: "live", lost: "connection lost, trying again", connecting: "connecting" };
const NEEDS = {
  "credentials-needed": "Tasks, dead letters and pausing are for operators, who sign in with their token or their key.",
  "operators-only":
    "Tasks, dead letters and pausing are for operators: once this gateway is given a token for them (POSTE_OPERATOR_TOKEN_FILE).",
};
const find = (id) => document.getElementById(id);

const LOCKED = {
  locked: "This gateway shows itself to who has a key: with the role read, or an operator's.",
  forbidden: "The key that you signed in with has not the role read, which this page needs.",
};

let operator = false;
const history = new History();
const services = new Services(trouble);
const dead = new Dead((id) => history.open(id), trouble);
new Finder((id) => history.open(id));
const tasks = new Tasks((id) => history.open(id));

/** Signs in with what is given; returns whether that went well, and says it if not. */
async function begin(given) {
  try {
    await signIn(given);
  } catch (error) {
    trouble(error.message);
    return false;
  }
  trouble("");
  return true;
}

// A link brings a code behind its #, which no server is sent, and no log has: it is good once, and soon over. It does not
// stay in the address either.
async function takeCode() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (!code) return false;
  window.history.replaceState(null, "", location.pathname + location.search);
  return begin({ code });
}

await takeCode();
const stream = new Stream({
  hello(hello) {
    operator = hello.operator;
    history.operator = operator;
    const name = hello.signedIn;
    find("operator").hidden = operator && !name;
    find("operator-form").hidden = operator || hello.needs !== "credentials-needed";
    find("sign-out").hidden = !name;
    say(find("operator-why"), [name && `Signed in as ${name}.`, NEEDS[hello.needs]].filter(Boolean).join(" "));
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
  if (name in LOCKED) {
    find("operator").hidden = find("operator-form").hidden = false;
    find("sign-out").hidden = name === "locked";
    say(find("operator-why"), LOCKED[name]);
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

find("operator-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = find("key").value.trim();
  find("key").value = "";
  if (await begin({ key })) {
    announce("You are signed in.");
    stream.restart();
  } else {
    find("key").focus();
  }
});

addEventListener("hashchange", async () => {
  if (await takeCode()) stream.restart();
});

find("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
  } catch (error) {
    return trouble(error.message);
  }
  stream.restart();
});
