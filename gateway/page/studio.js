// The studio: a prompt, who is in it, and everything that was made, newest first.

import { api } from "./api.js";
import { button, h, icon, replace, say } from "./dom.js";
import { Gallery, shownOf } from "./gallery.js";
import * as jobs from "./jobs.js";
import { attempt, empty, face, failure, notice } from "./parts.js";
import { t } from "./texts.js";

const MOST = 4; // characters of one picture, by the contract
const DRAFT = "studio-draft";
const HIDDEN = "hidden-jobs";

export async function open() {
  const [page] = await Promise.all([api.characters(null, "active"), jobs.refresh()]);
  const composer = new Composer(page.characters.filter((each) => each.active));
  const wall = new Wall(composer);
  const element = h(
    "div",
    { class: "studio" },
    h("h1", { class: "unseen", tabindex: "-1" }, t.studio.title),
    composer.element,
    wall.element,
  );
  const chosen = new URLSearchParams(location.hash.split("?")[1] || "").get("character");
  if (chosen) composer.choose(chosen);
  jobs.prefer(null);
  return { title: t.studio.title, element, close: () => wall.close() };
}

class Composer {
  constructor(characters) {
    this.characters = characters;
    this.chosen = new Map(); // character id → strength
    const kept = JSON.parse(sessionStorage.getItem(DRAFT) || "{}");
    this.prompt = h("textarea", {
      name: "prompt",
      rows: "3",
      maxlength: "8192",
      required: true,
      placeholder: t.studio.promptHint,
      "aria-describedby": "trigger-hint",
      onkeydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.element.requestSubmit();
      },
    });
    this.prompt.value = kept.prompt || "";
    this.size = select("size", Object.entries(t.studio.sizes), kept.size);
    this.format = select("format", Object.entries(t.studio.formats), kept.format);
    this.count = h("input", {
      type: "number",
      name: "count",
      min: "1",
      max: "8",
      value: String(kept.count || 1),
      oninput: () => this.label(),
    });
    // Fifteen digits: the largest numbers that a browser does not round.
    this.seed = h("input", {
      type: "text",
      name: "seed",
      inputmode: "numeric",
      pattern: "[0-9]{0,15}",
      autocomplete: "off",
      placeholder: t.studio.seedHint,
      value: kept.seed || "",
    });
    this.negative = h("input", {
      type: "text",
      name: "negative",
      maxlength: "8192",
      value: kept.negative || "",
    });
    this.steps = h("input", {
      type: "number",
      name: "steps",
      min: "1",
      max: "100",
      placeholder: t.studio.stepsHint,
      value: kept.steps || "",
    });
    this.go = h(
      "button",
      { class: "button primary big go", type: "submit" },
      icon("spark"),
      h("span"),
    );
    this.chips = h("div", { class: "chips" });
    this.strengths = h("div", { class: "strengths" });
    this.element = this.form();
    for (const [id, strength] of kept.chosen || [])
      if (characters.some((each) => each.character_id === id)) this.chosen.set(id, strength);
    this.label();
    this.draw();
  }

  form() {
    const field = (words, input) => h("label", { class: "field" }, h("span", {}, words), input);
    return h(
      "form",
      {
        class: "composer card",
        onsubmit: (event) => this.submit(event),
        oninput: () => this.keep(),
      },
      h("label", { class: "field prompt" }, h("span", {}, t.studio.prompt), this.prompt),
      h("p", { class: "faint", id: "trigger-hint" }, t.studio.triggerHint),
      h(
        "fieldset",
        { class: "who" },
        h("legend", {}, t.studio.who),
        this.characters.length
          ? this.chips
          : h(
              "p",
              { class: "faint" },
              t.studio.nobody,
              " ",
              h("a", { href: "#/new" }, t.characters.add),
            ),
        this.strengths,
      ),
      h(
        "div",
        { class: "options" },
        field(t.studio.size, this.size),
        field(t.studio.count, this.count),
        field(t.studio.seed, this.seed),
        field(t.studio.format, this.format),
      ),
      h(
        "details",
        { class: "more" },
        h("summary", {}, t.studio.more),
        h(
          "div",
          { class: "options" },
          field(t.studio.negative, this.negative),
          field(t.studio.steps, this.steps),
        ),
      ),
      h("div", { class: "row end" }, this.go),
    );
  }

  draw() {
    replace(
      this.chips,
      this.characters.map((each) => {
        const on = this.chosen.has(each.character_id);
        return h(
          "button",
          {
            type: "button",
            class: "chip",
            "aria-pressed": String(on),
            "data-character": each.character_id,
            onclick: () => this.toggle(each.character_id),
          },
          face(each, "tiny"),
          h("span", {}, each.name || each.character_id),
          on ? icon("check") : null,
        );
      }),
    );
    replace(
      this.strengths,
      [...this.chosen].map(([id, strength]) => {
        const name = this.characters.find((each) => each.character_id === id).name;
        const shown = h("output", {}, strength.toFixed(2));
        return h(
          "label",
          { class: "strength" },
          h("span", {}, t.studio.strength(name)),
          h("input", {
            type: "range",
            min: "0",
            max: "1.5",
            step: "0.05",
            value: String(strength),
            oninput: (event) => {
              this.chosen.set(id, Number(event.target.value));
              shown.textContent = Number(event.target.value).toFixed(2);
            },
          }),
          shown,
        );
      }),
    );
  }

  toggle(id) {
    if (this.chosen.delete(id)) this.draw();
    else if (this.chosen.size === MOST) notice(t.studio.tooMany, { bad: true });
    else this.choose(id);
    this.keep();
    this.chips.querySelector(`[data-character="${CSS.escape(id)}"]`)?.focus();
  }

  choose(id) {
    const character = this.characters.find((each) => each.character_id === id);
    if (character) this.chosen.set(id, character.active.strength ?? 1);
    this.draw();
  }

  label() {
    this.go.lastChild.textContent = t.studio.go(Number(this.count.value) || 1);
  }

  keep() {
    const kept = {
      prompt: this.prompt.value,
      size: this.size.value,
      format: this.format.value,
      count: this.count.value,
      seed: this.seed.value,
      negative: this.negative.value,
      steps: this.steps.value,
      chosen: [...this.chosen],
    };
    try {
      sessionStorage.setItem(DRAFT, JSON.stringify(kept));
    } catch {
      /* full: the draft is not kept */
    }
  }

  /** The form as a job's input. */
  input() {
    const [width, height] = this.size.value.split("x").map(Number);
    const body = {
      prompt: this.prompt.value,
      width,
      height,
      count: Number(this.count.value) || 1,
      format: this.format.value,
    };
    if (this.chosen.size)
      body.characters = [...this.chosen].map(([character_id, strength]) => ({
        character_id,
        strength,
      }));
    if (this.seed.value) body.seed = Number(this.seed.value);
    if (this.negative.value) body.negative_prompt = this.negative.value;
    if (this.steps.value) body.steps = Number(this.steps.value);
    return body;
  }

  /** A job's input back into the form. */
  take(job) {
    const { input, result } = job;
    this.prompt.value = input.prompt || "";
    const size = `${input.width}x${input.height}`;
    if (t.studio.sizes[size]) this.size.value = size;
    this.format.value = input.format || "png";
    this.count.value = String(input.count || 1);
    this.seed.value = String(result?.seed ?? input.seed ?? "");
    this.negative.value = input.negative_prompt || "";
    this.steps.value = input.steps || "";
    this.chosen.clear();
    for (const use of usesOf(input))
      if (this.characters.some((each) => each.character_id === use.character_id))
        this.chosen.set(use.character_id, use.strength ?? 1);
    this.label();
    this.draw();
    this.keep();
    this.prompt.focus();
    this.element.scrollIntoView({ block: "start" });
  }

  async submit(event) {
    event.preventDefault();
    const input = this.input();
    this.go.disabled = true;
    await attempt(async () => jobs.sent(await api.image(input)), t.studio.sent(input.count));
    this.go.disabled = false;
  }
}

class Wall {
  constructor(composer) {
    this.hidden = new Set(JSON.parse(sessionStorage.getItem(HIDDEN) || "[]"));
    this.gallery = new Gallery({
      again: (job, { same = false }) =>
        attempt(() => again(job, same), t.studio.sent(job.input.count || 1)),
      reuse: (job) => composer.take(job),
      video: async (body) => jobs.sent(await api.video(body)),
      cancel: (id) => attempt(async () => jobs.noted(await api.cancel(id)), t.jobs.cancelled),
      hide: (id) => this.hide(id),
    });
    this.place = h("div", {});
    this.more = button(t.more, { sign: "down", hidden: true, onclick: () => this.older() });
    this.element = h(
      "section",
      { class: "wall" },
      h("h2", {}, t.studio.gallery),
      this.place,
      h("div", { class: "row middle" }, this.more),
    );
    this.stop = jobs.onJob((job, before) => {
      this.draw();
      if (
        job.state === "completed" &&
        before &&
        !jobs.ended(before) &&
        ["image", "video"].includes(job.task)
      )
        say(t.studio.done(shownOf(job).length, job.task));
    });
    this.draw();
  }

  close() {
    this.stop();
  }

  draw() {
    const shown = jobs
      .newest()
      .filter((job) => (job.task === "image" || job.task === "video") && !this.hidden.has(job.id));
    this.gallery.show(shown);
    const wanted = shown.length
      ? this.gallery.element
      : this.place.querySelector(".empty") ||
        empty("photo", t.studio.emptyTitle, t.studio.emptyText);
    if (this.place.firstChild !== wanted) replace(this.place, wanted);
    this.more.hidden = !jobs.hasOlder();
  }

  hide(id) {
    this.hidden.add(id);
    sessionStorage.setItem(HIDDEN, JSON.stringify([...this.hidden]));
    this.draw();
  }

  async older() {
    this.more.disabled = true;
    await attempt(() => jobs.older());
    this.more.disabled = false;
    this.draw();
  }
}

/** Send a job's input once more: as it was, or with another seed. */
export async function again(job, same) {
  const { task, webhook, request_id, seed, ...input } = job.input;
  const body = same && seed !== undefined ? { ...input, seed } : input;
  jobs.sent(await (task === "video" ? api.video(body) : api.image(body)));
}

/** The characters of a job's input, however it named them. */
export function usesOf(input) {
  if (input.character_id) return [{ character_id: input.character_id, strength: input.strength }];
  return input.characters || [];
}

function select(name, options, value) {
  const element = h(
    "select",
    { name },
    options.map(([key, words]) => h("option", { value: key }, words)),
  );
  if (value && options.some(([key]) => key === value)) element.value = value;
  return element;
}
