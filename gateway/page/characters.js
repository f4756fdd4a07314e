// All characters, with their faces.

import { api } from "./api.js";
import { button, h, icon, replace } from "./dom.js";
import * as jobs from "./jobs.js";
import { attempt, bar, doing, empty, face } from "./parts.js";
import { t } from "./texts.js";

export async function open() {
  const [page] = await Promise.all([api.characters(null, null), jobs.refresh()]);
  const view = new Characters(page);
  return { title: t.characters.title, element: view.element, close: () => view.stop() };
}

class Characters {
  constructor(page) {
    this.found = page.characters;
    this.cursor = page.cursor;
    this.grid = h("div", {});
    this.more = button(t.more, { sign: "down", onclick: () => this.next() });
    this.element = h(
      "div",
      { class: "page" },
      h(
        "div",
        { class: "head" },
        h("h1", { tabindex: "-1" }, t.characters.title),
        h(
          "a",
          { class: "button primary", href: "#/new" },
          icon("add"),
          h("span", {}, t.characters.add),
        ),
      ),
      this.grid,
      h("div", { class: "row middle" }, this.more),
    );
    this.stop = jobs.onJob((job, before) => {
      if (job.task !== "train") return;
      if (jobs.ended(job) && before && !jobs.ended(before)) this.again();
      else this.draw();
    });
    this.draw();
  }

  async again() {
    await attempt(async () => {
      const page = await api.characters(null, null);
      this.found = page.characters;
      this.cursor = page.cursor;
    });
    this.draw();
  }

  async next() {
    await attempt(async () => {
      const page = await api.characters(this.cursor, null);
      this.found.push(...page.characters);
      this.cursor = page.cursor;
    });
    this.draw();
  }

  draw() {
    const training = jobs.newest().filter((job) => job.task === "train" && !jobs.ended(job));
    const cards = [...training.map(underway), ...this.found.map(card)];
    this.more.hidden = this.cursor === null;
    replace(
      this.grid,
      cards.length
        ? h(
            "ul",
            { class: "faces" },
            cards.map((each) => h("li", {}, each)),
          )
        : empty(
            "face",
            t.characters.emptyTitle,
            t.characters.emptyText,
            h(
              "a",
              { class: "button primary", href: "#/new" },
              icon("add"),
              h("span", {}, t.characters.add),
            ),
          ),
    );
  }
}

function card(character) {
  const name = character.name || character.character_id;
  const gone = character.status === "deleted";
  const note = gone
    ? t.characters.deleted
    : character.active
      ? t.characters.trigger(character.trigger)
      : t.characters.noVersion;
  return h(
    "a",
    { class: `person ${gone ? "gone" : ""}`, href: `#/characters/${character.character_id}` },
    face(character, "large"),
    h("strong", {}, name),
    h("span", { class: "faint" }, note),
  );
}

function underway(job) {
  const name = job.input.name || job.input.character_id;
  return h(
    "a",
    { class: "person", href: `#/jobs/${job.id}` },
    face({ character_id: job.input.character_id, name }, "large"),
    h("strong", {}, name),
    h("span", { class: "faint" }, `${t.characters.waiting}: ${doing(job)}`),
    bar(job.progress?.percent || 0, t.characters.waiting),
  );
}
