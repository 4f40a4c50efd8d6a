// The page at /docs: the OpenAPI document of the catalogue, or of one service, as Swagger UI shows it.

// With more services than these the page begins with the first of them: a document of all would be megabytes, and a
// browser would take seconds to show it.
const MOST = 30;
// Of so many the methods are listed at once, of more the services.
const FEW = 5;
import { signIn } from "./api.js";

const find = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");

function note(text) {
  find("note").textContent = text;
  find("note").hidden = !text;
}

async function catalogued() {
  const answer = await fetch("v1/services");
  const told = await answer.json();
  if (answer.status === 401) find("locked").hidden = false;
  if (!answer.ok) throw new Error(told.detail ?? told.title);
  return told.services.map((one) => one.name).sort();
}

function offer(names) {
  find("services").replaceChildren(...names.map((name) => new Option(name, name)));
  find("choice").hidden = names.length < 2;
  if (names.length > MOST) find("service").placeholder = "one of " + names.length;
}

function wanted(names) {
  const named = new URLSearchParams(location.search).get("service") ?? "";
  return named || names.length <= MOST ? named : names[0];
}

function show(name, listed) {
  const url = "openapi.json" + (name ? "?service=" + encodeURIComponent(name) : "");
  find("service").value = name;
  find("document").href = url;
  SwaggerUIBundle({
    url: new URL(url, document.baseURI).href,
    domNode: find("api"),
    // Nothing is sent to anybody but this gateway.
    validatorUrl: null,
    deepLinking: true,
    docExpansion: listed ? "list" : "none",
    defaultModelsExpandDepth: -1,
    displayRequestDuration: true,
    tryItOutEnabled: true,
  });
}

const colour = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", colour);
colour();

find("locked").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await signIn({ key: find("key").value.trim() });
  } catch (error) {
    return note(error.message);
  }
  location.reload();
});

try {
  const names = await catalogued();
  offer(names);
  if (!names.length) note("No service is catalogued. Reload this page once one is.");
  find("choice").addEventListener("submit", (event) => event.preventDefault());
  find("service").addEventListener("change", (event) => {
    const name = event.target.value.trim();
    if (name && !names.includes(name)) return note(`There is no service ${name}.`);
    location.assign(name ? "docs?service=" + encodeURIComponent(name) : "docs");
  });
  const name = wanted(names);
  show(name, name || names.length <= FEW);
} catch (error) {
  note(`The catalogue can't be read: ${error.message}`);
}
