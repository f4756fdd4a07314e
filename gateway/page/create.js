// A new character: photos, a name, a noun.

import { api } from "./api.js";
import { button, h, icon, replace, say } from "./dom.js";
import * as jobs from "./jobs.js";
import { attempt, bar } from "./parts.js";
import { Photos, remember, verdictWords } from "./photos.js";
import { t } from "./texts.js";

const LEAST = 5; // photos, by the contract
const MANY = 12;

export async function open() {
  const { characters } = await api.characters(null, null);
  const view = new Create(characters);
  const given = new URLSearchParams(location.hash.split("?")[1] || "");
  view.name.value = given.get("name") || "";
  view.noun.value = given.get("noun") || "";
  view.named();
  return { title: t.create.title, element: view.element, close: () => view.close() };
}

/** A character's id out of its name: letters, digits and hyphens. */
export function idOf(name) {
  const plain = name
    .normalize("NFKD")
    .replace(/[\u0300-\u036f]/g, "")
    .toLowerCase();
  return plain
    .replace(/[^a-z0-9_]+/g, "-")
    .replace(/^[-_]+|-+$/g, "")
    .slice(0, 64);
}

class Create {
  constructor(characters) {
    this.characters = characters;
    this.photos = new Photos((photo) => this.changed(photo));
    this.figures = new Map();
    this.input = h("input", {
      type: "file",
      multiple: true,
      accept: "image/jpeg,image/png,image/webp,image/heic,image/heif,.heic,.heif",
      class: "unseen",
      id: "files",
      onchange: () => {
        this.take(this.input.files);
        this.input.value = "";
      },
    });
    this.grid = h("ul", { class: "photos", "aria-label": t.create.photos });
    this.count = h("p", { class: "faint", role: "status" });
    this.name = h("input", {
      type: "text",
      name: "name",
      required: true,
      maxlength: "64",
      autocomplete: "off",
      placeholder: t.create.nameHint,
      oninput: () => this.named(),
    });
    this.noun = h("input", {
      type: "text",
      name: "noun",
      maxlength: "64",
      autocomplete: "off",
      list: "nouns",
      placeholder: t.create.nounHint,
    });
    this.idNote = h("p", { class: "faint" });
    this.go = h(
      "button",
      { class: "button primary big", type: "submit" },
      icon("spark"),
      h("span", {}, t.create.go),
    );
    this.element = this.page();
    this.warn = (event) => {
      if (this.photos.all.length && !this.done) event.preventDefault();
    };
    addEventListener("beforeunload", this.warn);
    this.show();
  }

  close() {
    removeEventListener("beforeunload", this.warn);
  }

  page() {
    const zone = h(
      "div",
      {
        class: "drop",
        ondragover: (event) => {
          event.preventDefault();
          zone.classList.add("over");
        },
        ondragleave: () => zone.classList.remove("over"),
        ondrop: (event) => {
          event.preventDefault();
          zone.classList.remove("over");
          this.take(event.dataTransfer.files);
        },
      },
      icon("photo"),
      h("strong", {}, t.create.drop),
      h("label", { class: "button", for: "files" }, t.create.choose),
      this.input,
      h("span", { class: "faint" }, t.create.kinds),
    );
    return h(
      "form",
      { class: "page create", onsubmit: (event) => this.submit(event) },
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t.create.title)),
      h("p", { class: "lead" }, t.create.lead),
      zone,
      this.grid,
      this.count,
      h(
        "div",
        { class: "card" },
        h(
          "div",
          { class: "options two" },
          h(
            "div",
            {},
            h("label", { class: "field" }, h("span", {}, t.create.name), this.name),
            this.idNote,
          ),
          h(
            "label",
            { class: "field" },
            h("span", {}, t.create.noun),
            this.noun,
            h(
              "datalist",
              { id: "nouns" },
              t.create.nouns.map((noun) => h("option", { value: noun })),
            ),
          ),
        ),
        h("div", { class: "row end" }, (this.hint = h("span", { class: "faint" })), this.go),
      ),
    );
  }

  async take(files) {
    const added = await this.photos.add(files);
    if (added.length) say(t.create.added(added.length));
  }

  changed(photo) {
    if (!this.photos.all.includes(photo)) return;
    let parts = this.figures.get(photo);
    if (!parts) {
      parts = this.figure(photo);
      this.figures.set(photo, parts);
      this.grid.append(parts.element);
    }
    if (photo.thumb && !parts.picture.firstChild?.src)
      replace(parts.picture, h("img", { src: photo.thumb, alt: "" }));
    parts.element.dataset.state = photo.state;
    parts.words.textContent = t.create.verdict[photo.state];
    parts.why.textContent = verdictWords(photo);
    parts.element.title = verdictWords(photo);
    parts.share.value = photo.sent * 100;
    parts.share.hidden = photo.state !== "sending";
    parts.again.hidden = photo.state !== "failed";
    this.show();
  }

  figure(photo) {
    const picture = h("span", { class: "thumb" }, icon("photo"));
    const words = h("span", { class: "verdict" });
    const why = h("span", { class: "unseen" });
    const share = bar(0, photo.name);
    const again = button(t.create.again, {
      sign: "redo",
      quiet: true,
      kind: "over again",
      onclick: () => this.photos.again(photo),
    });
    const away = button(t.create.remove(photo.name), {
      sign: "close",
      quiet: true,
      kind: "over",
      onclick: () => this.drop(photo),
    });
    const element = h(
      "li",
      {},
      picture,
      share,
      h("span", { class: "below" }, words, why, h("span", { class: "name" }, photo.name)),
      away,
      again,
    );
    return { element, picture, words, why, share, again };
  }

  drop(photo) {
    const { element } = this.figures.get(photo);
    const next = element.nextElementSibling || element.previousElementSibling;
    this.photos.remove(photo);
    this.figures.delete(photo);
    element.remove();
    (next?.querySelector("button") || this.input).focus();
    this.show();
  }

  named() {
    const id = idOf(this.name.value);
    const same = this.characters.find((each) => each.character_id === id);
    this.idNote.textContent = same ? t.create.exists(same.name) : id ? t.create.id(id) : "";
    this.show();
  }

  show() {
    const usable = this.photos.usable.length;
    const ready = this.photos.ready.length;
    const waiting = usable - ready;
    this.grid.hidden = this.photos.all.length === 0;
    this.element.classList.toggle("filled", this.photos.all.length > 0);
    this.count.textContent =
      usable === 0
        ? ""
        : waiting
          ? t.create.uploading(ready, usable)
          : `${t.create.ready(ready)} ${ready < MANY ? t.create.few : ""}`;
    this.hint.textContent =
      usable < LEAST
        ? t.create.need(usable, LEAST)
        : idOf(this.name.value)
          ? ""
          : t.create.needName;
    this.go.disabled = this.sending || waiting > 0 || ready < LEAST || !idOf(this.name.value);
  }

  async submit(event) {
    event.preventDefault();
    this.sending = true;
    this.show();
    const body = {
      character_id: idOf(this.name.value),
      name: this.name.value.trim(),
      images: this.photos.ready.map((photo) => ({ key: photo.key })),
    };
    if (this.noun.value.trim()) body.class_noun = this.noun.value.trim();
    (await attempt(async () => {
      const job = jobs.sent(await api.train(body));
      remember(job.id, this.photos.ready);
      this.done = true;
      location.hash = `#/jobs/${job.id}`;
    }, null)) && say(t.training.sent);
    this.sending = false;
    this.show();
  }
}
