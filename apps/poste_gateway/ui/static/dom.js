// Making and changing elements. What is shown already is changed in place, so that focus and selection stay.

/** Makes an element: `make("p", {class: "note"}, "text", child)`. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  element.append(...children);
  return element;
}

/** A method's name, `SumService/Add`, in parts: where it is too long for a line, it goes on behind the slash. */
export function broken(name) {
  const [service, method] = name.split("/");
  return [`${service}/`, make("wbr"), method];
}

/** Sets an attribute, or removes it if the value is null or false; touches nothing that is so already. */
export function set(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/** Sets an element's text, if it is another. */
export function say(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** One of the page's own small pictures. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}

/** Shows another picture. */
export function redraw(svg, name) {
  set(svg.firstChild, "href", `#${name}`);
}

/** Announces to a screen reader what happened. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}

/**
 * Makes a list show items, in their order, one element for each key; what has the focus stays until it loses it.
 *
 * @param {Element} list where they are
 * @param {Array} items what is to be shown
 * @param {function} key names an item
 * @param {function} create makes an item's element
 * @param {function} fill brings an element up to date
 */
export function keep(list, items, key, create, fill) {
  const wanted = new Set(items.map(key));
  const there = new Map();
  for (const element of [...list.children]) {
    if (wanted.has(element.dataset.key) || element.contains(document.activeElement)) {
      there.set(element.dataset.key, element);
    } else {
      element.remove();
    }
  }
  let next = list.firstElementChild;
  for (const item of items) {
    while (next && !wanted.has(next.dataset.key)) next = next.nextElementSibling;
    let element = there.get(key(item));
    if (!element) {
      element = create(item);
      element.dataset.key = key(item);
    }
    if (element === next) next = next.nextElementSibling;
    else list.insertBefore(element, next);
    fill(element, item);
  }
}

/** Asks before what can't be undone; resolves to whether it is wanted. */
export function confirm(title, text, yes) {
  const dialog = document.getElementById("confirm");
  say(document.getElementById("confirm-title"), title);
  say(document.getElementById("confirm-text"), text);
  say(document.getElementById("confirm-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
