// Elements from plain values. Text is always text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `on…` are listeners, other attributes are set as they are, false and null left out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" && "value" in element) element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== false && child !== undefined),
  );
  return element;
}

/** Put new children in the place of all old ones. */
export function replace(element, ...children) {
  element.replaceChildren(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== false && child !== undefined),
  );
}

const PATHS = {
  add: "M12 5v14M5 12h14",
  back: "M15 5l-7 7 7 7",
  check: "M5 12.5l4.5 4.5L19 7.5",
  clip: "M4 6.5h11v11H4zM15 10.5l5-3v9l-5-3",
  close: "M6 6l12 12M18 6L6 18",
  cloud:
    "M4 4l16 16M7.5 9.5A4.5 4.5 0 0 0 7 18.5h10.5M10 6.3a5.5 5.5 0 0 1 7.3 4.7 3.8 3.8 0 0 1 2.7 6",
  dice: "M5 5h14v14H5zM9 9h.01M15 9h.01M12 12h.01M9 15h.01M15 15h.01",
  down: "M12 4v11M7 10.5l5 5 5-5M5 20h14",
  face: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20.5c.8-4 3.7-6 7.5-6s6.7 2 7.5 6",
  jobs: "M5 6.5h14M5 12h14M5 17.5h8",
  key: "M14 10a4 4 0 1 1-4-4 4 4 0 0 1 4 4zM13 12.5l7 7M17 16.5l2-2",
  moon: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z",
  next: "M9 5l7 7-7 7",
  photo: "M4 5.5h16v13H4zM4 15.5l4.5-4.5 4 4 2.5-2.5 5 5M15.5 9.2h.01",
  pulse: "M3 12h4l3-7 4 14 3-7h4",
  redo: "M19 12a7 7 0 1 1-2.2-5.1L19 9M19 4v5h-5",
  spark: "M12 3.5l1.9 5.6 5.6 1.9-5.6 1.9L12 18.5l-1.9-5.6L4.5 11l5.6-1.9zM18.5 16.5v4M16.5 18.5h4",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  trash: "M5 7h14M9.5 7V4.5h5V7M7 7l.8 13h8.4L17 7",
  undo: "M5 12a7 7 0 1 0 2.2-5.1L5 9M5 4v5h5",
  warn: "M12 4.5l8.5 15h-17zM12 10.5v4M12 17.2h.01",
};

/** A drawn sign; it says nothing to a screen reader, the words beside it do. */
export function icon(name) {
  return svg(
    "svg",
    { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" },
    svg("path", { d: PATHS[name] }),
  );
}

/** A button with a sign and words; `quiet` ones show the sign alone and say the words. */
export function button(words, { sign = null, quiet = false, kind = "", ...attributes } = {}) {
  const named = quiet ? { "aria-label": words, title: words } : {};
  const classes = `button ${kind} ${quiet ? "round" : ""}`.trim();
  return h(
    "button",
    { type: "button", class: classes, ...named, ...attributes },
    sign ? icon(sign) : null,
    quiet ? null : h("span", {}, words),
  );
}

let spoken = null;

/** The region that tells a screen reader what changed. */
export function voice() {
  spoken = h("div", { class: "unseen", role: "status", "aria-live": "polite" });
  return spoken;
}

export function say(words) {
  if (spoken) spoken.textContent = words;
}

/** Ask before something that cannot be taken back; resolves to whether it was confirmed. */
export function confirmed(title, words, yes, no, { danger = true, typed = null, label = "" } = {}) {
  return new Promise((resolve) => {
    const sure = button(yes, {
      kind: danger ? "danger" : "primary",
      onclick: () => dialog.close("yes"),
    });
    const field =
      typed === null
        ? null
        : h("input", {
            type: "text",
            autocomplete: "off",
            oninput: () => {
              sure.disabled = field.value !== typed;
            },
          });
    sure.disabled = typed !== null;
    const dialog = h(
      "dialog",
      {
        class: "ask",
        "aria-label": title,
        onclose: () => {
          dialog.remove();
          resolve(dialog.returnValue === "yes");
        },
      },
      h("h2", {}, title),
      h("p", {}, words),
      field && h("label", { class: "field" }, h("span", {}, label), field),
      h("div", { class: "row end" }, button(no, { onclick: () => dialog.close("no") }), sure),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
