// The frame around the views: navigation, theme, connection, and which view an address means.

import { ApiError, key, onConnection, get } from "./api.js";
import { button, h, icon, replace, say, voice } from "./dom.js";
import { watching } from "./jobs.js";
import { busy, failure, empty } from "./parts.js";
import { t } from "./texts.js";
import * as character from "./character.js";
import * as characters from "./characters.js";
import * as create from "./create.js";
import * as joblist from "./joblist.js";
import * as studio from "./studio.js";
import * as training from "./training.js";

// All views come with the page: one that is fetched on its first use is missing when offline.
const ROUTES = [
  [/^\/$/, studio, "studio"],
  [/^\/characters$/, characters, "characters"],
  [/^\/new$/, create, "characters"],
  [/^\/characters\/([a-z0-9_-]+)$/, character, "characters"],
  [/^\/jobs$/, joblist, "jobs"],
  [/^\/jobs\/([A-Za-z0-9_-]+)$/, training, "jobs"],
];
const PLACES = [
  ["studio", "#/", "spark"],
  ["characters", "#/characters", "face"],
  ["jobs", "#/jobs", "jobs"],
];

const main = h("main", { id: "content", tabindex: "-1" });
const banner = h("div", { class: "banner", role: "alert", hidden: true });
let leave = () => {};
let turn = 0; // counts navigations: a view that comes late is not shown

function frame() {
  const links = PLACES.map(([name, address, sign]) =>
    h("a", { href: address, "data-place": name }, icon(sign), h("span", {}, t.nav[name])),
  );
  replace(
    document.getElementById("app"),
    h(
      "a",
      {
        class: "skip",
        href: "#content",
        onclick: (event) => {
          event.preventDefault();
          main.focus();
        },
      },
      t.skip,
    ),
    h(
      "header",
      { class: "top" },
      h(
        "a",
        { class: "brand", href: "#/" },
        h("img", { src: "icon.svg", alt: "", width: "30", height: "30" }),
        h("span", {}, t.brand),
      ),
      h("nav", { class: "places", "aria-label": t.nav.label }, links),
      themeButton(),
    ),
    banner,
    main,
    voice(),
  );
}

function themeButton() {
  const dark = () =>
    (document.documentElement.dataset.theme ||
      (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const place = h("div", { class: "theme" });
  const show = () =>
    replace(
      place,
      button(dark() ? t.theme.light : t.theme.dark, {
        sign: dark() ? "sun" : "moon",
        quiet: true,
        onclick: () => {
          document.documentElement.dataset.theme = dark() ? "light" : "dark";
          try {
            localStorage.setItem("theme", document.documentElement.dataset.theme);
          } catch {
            /* for this visit then */
          }
          show();
          place.firstChild.focus();
        },
      }),
    );
  show();
  return place;
}

async function show() {
  const mine = ++turn;
  const path = location.hash.slice(1).split("?")[0] || "/";
  const route = ROUTES.map(([pattern, view, place]) => [path.match(pattern), view, place]).find(
    ([match]) => match,
  );
  leave();
  leave = () => {};
  document.querySelectorAll("[data-place]").forEach((link) => {
    if (link.dataset.place === route?.[2]) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  replace(main, busy());
  if (!route) {
    replace(
      main,
      h("h1", { class: "unseen" }, t.notFound.title),
      empty(
        "cloud",
        t.notFound.title,
        t.notFound.text,
        h("a", { class: "button primary", href: "#/" }, t.notFound.home),
      ),
    );
    return;
  }
  try {
    const view = await route[1].open(...route[0].slice(1));
    if (mine !== turn) {
      view.close?.();
      return;
    }
    leave = () => view.close?.();
    document.title = view.title === t.studio.title ? t.brand : `${view.title} · ${t.brand}`;
    replace(main, view.element);
    if (mine > 1) (main.querySelector("h1") || main).focus();
    window.scrollTo(0, 0);
  } catch (error) {
    if (mine !== turn) return;
    if (error instanceof ApiError && error.status === 401) askForKey(error);
    else replace(main, failure(error, show));
  }
}

function askForKey(error) {
  // Without keys the gateway serves its own machine alone: no key would help.
  const given = key.get();
  const field = h("input", { type: "password", autocomplete: "off", required: true, name: "key" });
  const wrong = h("p", { class: "wrong", role: "alert" }, given ? t.key.wrong : "");
  const form = h(
    "form",
    {
      class: "card narrow",
      onsubmit: async (event) => {
        event.preventDefault();
        key.set(field.value.trim());
        show();
      },
    },
    h("h1", { tabindex: "-1" }, icon("key"), t.key.title),
    h("p", {}, t.key.text),
    h("label", { class: "field" }, h("span", {}, t.key.label), field),
    wrong,
    h("p", { class: "faint" }, error.message),
    h("button", { class: "button primary", type: "submit" }, t.key.enter),
  );
  replace(main, form);
  field.focus();
}

onConnection((state) => {
  if (state === "key") return;
  banner.hidden = state === "online";
  replace(banner, icon("cloud"), h("span", {}, t.offline));
  if (state === "online") say(t.back);
  else probe();
});

async function probe() {
  for (let wait = 1000; !banner.hidden; wait = Math.min(wait * 1.5, 15_000)) {
    await new Promise((resolve) => {
      setTimeout(resolve, wait);
    });
    await get("/ping").catch(() => {});
  }
  if (main.querySelector(".failure")) show();
}

frame();
addEventListener("hashchange", show);
addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof ApiError && event.reason.status === 401) askForKey(event.reason);
});
show();
watching();
