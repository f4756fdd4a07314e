// One character: its versions, its pictures, and what can be changed.

import { api } from "./api.js";
import { button, confirmed, h, icon, replace } from "./dom.js";
import { Gallery } from "./gallery.js";
import * as jobs from "./jobs.js";
import { attempt, face, when } from "./parts.js";
import { t } from "./texts.js";

export async function open(id) {
  const view = new Character(id);
  const [, outputs] = await Promise.all([view.load(), api.outputs(id, null)]);
  view.add(outputs);
  return { title: view.character.name, element: view.element, close: () => {} };
}

class Character {
  constructor(id) {
    this.id = id;
    this.made = [];
    this.top = h("div", {});
    this.versions = h("section", {});
    this.more = button(t.more, { sign: "down", onclick: () => this.older() });
    this.wall = h("div", {});
    this.foot = h("section", { class: "card row danger-zone" });
    this.gallery = new Gallery({
      video: async (body) => jobs.sent(await api.video(body)),
    });
    this.element = h(
      "div",
      { class: "page" },
      this.top,
      this.versions,
      h(
        "section",
        {},
        h("h2", {}, t.character.outputs),
        this.wall,
        h("div", { class: "row middle" }, this.more),
      ),
      this.foot,
    );
  }

  async load() {
    const { character, versions } = await api.character(this.id);
    this.character = character;
    this.drawTop();
    this.drawVersions(versions);
    this.drawFoot();
  }

  drawTop() {
    const { character } = this;
    const gone = character.status === "deleted";
    const name = h("h1", { tabindex: "-1" }, character.name);
    replace(
      this.top,
      h(
        "div",
        { class: "profile" },
        face(character, "huge"),
        h(
          "div",
          { class: "stack grow" },
          h(
            "div",
            { class: "row" },
            name,
            gone
              ? null
              : button(t.character.rename, { kind: "plain", onclick: () => this.rename(name) }),
          ),
          h(
            "p",
            { class: "faint row" },
            h("code", {}, character.character_id),
            h("span", {}, t.characters.trigger(character.trigger)),
            h("span", {}, character.class_noun),
            when(character.created_at),
          ),
          gone
            ? h("p", { class: "warning" }, icon("warn"), t.character.deletedNote)
            : h(
                "div",
                { class: "row" },
                character.active &&
                  h(
                    "a",
                    { class: "button primary", href: `#/?character=${this.id}` },
                    icon("spark"),
                    h("span", {}, t.character.use),
                  ),
                h(
                  "a",
                  {
                    class: "button",
                    href: `#/new?name=${encodeURIComponent(character.name)}&noun=${encodeURIComponent(character.class_noun)}`,
                  },
                  icon("photo"),
                  h("span", {}, t.character.train),
                ),
              ),
        ),
      ),
    );
  }

  rename(title) {
    const field = h("input", {
      type: "text",
      value: this.character.name,
      maxlength: "64",
      required: true,
      "aria-label": t.character.newName,
    });
    const form = h(
      "form",
      {
        class: "row",
        onsubmit: async (event) => {
          event.preventDefault();
          if (await attempt(() => api.rename(this.id, field.value.trim()), t.character.renamed))
            await this.load();
          this.top.querySelector("h1").focus();
        },
      },
      field,
      h("button", { class: "button primary", type: "submit" }, t.character.save),
      button(t.cancel, {
        onclick: () => {
          this.drawTop();
          this.top.querySelector("h1").focus();
        },
      }),
    );
    title.parentElement.replaceWith(form);
    field.select();
  }

  drawVersions(versions) {
    const active = this.character.active?.id;
    const gone = this.character.status === "deleted";
    const lines = [...versions]
      .reverse()
      .map((version) =>
        h(
          "li",
          { class: `version ${version.id === active ? "active" : ""}` },
          version.preview
            ? h(
                "a",
                {
                  class: "sheet-link",
                  href: version.preview.url,
                  target: "_blank",
                  rel: "noopener",
                  "aria-label": t.character.preview,
                },
                sheet(version.preview.url),
              )
            : h("span", { class: "sheet-link" }, icon("jobs")),
          h(
            "div",
            { class: "stack grow" },
            h("strong", {}, when(version.created_at)),
            h(
              "span",
              { class: "faint" },
              version.training
                ? t.character.trained(version.training.steps ?? "?")
                : t.character.registered,
            ),
            h("span", { class: "faint" }, t.character.size(t.bytes(version.size), version.rank)),
          ),
          version.curve
            ? h(
                "a",
                {
                  class: "button plain",
                  href: version.curve.url,
                  target: "_blank",
                  rel: "noopener",
                },
                icon("pulse"),
                h("span", {}, t.character.curve),
              )
            : null,
          version.id === active
            ? h("span", { class: "state completed" }, t.character.active)
            : gone
              ? null
              : button(t.character.activate, {
                  onclick: () =>
                    this.change(() => api.activate(this.id, version.id), t.character.activated),
                }),
        ),
      );
    replace(
      this.versions,
      h(
        "div",
        { class: "head" },
        h("h2", {}, t.character.versions),
        versions.length > 1 && !gone
          ? button(t.character.rollback, {
              sign: "undo",
              onclick: () => this.change(() => api.rollback(this.id), t.character.rolledBack),
            })
          : null,
      ),
      h("ul", { class: "versions card" }, lines),
    );
  }

  drawFoot() {
    const gone = this.character.status === "deleted";
    replace(
      this.foot,
      h("h2", { class: "grow" }, t.character.danger),
      gone
        ? button(t.character.restore, {
            sign: "undo",
            onclick: () => this.change(() => api.restore(this.id), t.character.restored),
          })
        : button(t.character.remove, {
            sign: "trash",
            onclick: () => this.change(() => api.remove(this.id), t.character.removed),
          }),
      button(t.character.erase, { sign: "trash", kind: "danger", onclick: () => this.erase() }),
    );
  }

  async change(action, words) {
    if (await attempt(action, words)) await attempt(() => this.load());
  }

  async erase() {
    const ask = t.character.eraseAsk(this.character.name, this.id);
    if (
      !(await confirmed(ask.title, ask.text, ask.yes, ask.no, { typed: this.id, label: ask.label }))
    )
      return;
    await attempt(async () => {
      const job = jobs.sent(await api.erase(this.id));
      location.hash = `#/jobs/${job.id}`;
    }, t.character.erasing);
  }

  /** One page of outputs, as jobs that the gallery shows. */
  add(page) {
    this.cursor = page.cursor;
    const shown = page.jobs.map((each) => ({
      id: each.job_id,
      task: "image",
      state: "completed",
      created_at: each.created_at,
      result: { outputs: each.outputs, manifest: each.manifest },
    }));
    this.made.push(...shown.filter((each) => each.result.outputs.length));
    this.more.hidden = this.cursor === null;
    this.gallery.show(this.made);
    replace(
      this.wall,
      this.made.length ? this.gallery.element : h("p", { class: "faint" }, t.character.noOutputs),
    );
  }

  async older() {
    await attempt(async () => this.add(await api.outputs(this.id, this.cursor)));
  }
}

function sheet(url) {
  const picture = h("img", { src: url, alt: "", loading: "lazy" });
  picture.addEventListener("error", () => picture.replaceWith(icon("photo")));
  return picture;
}
