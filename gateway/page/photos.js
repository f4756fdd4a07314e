// Photos on their way: looked at in the browser, then put straight into the bucket.

import { api } from "./api.js";
import { t } from "./texts.js";

const TYPES = {
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  png: "image/png",
  webp: "image/webp",
  heic: "image/heic",
  heif: "image/heif",
};
const LARGEST = 25_000_000; // bytes, the gateway's own limit
const SMALL = 768; // pixels of the short side that the worker warns below
const TINY = 256;
const AT_A_TIME = 3;
const THUMB = 256; // pixels

/** One photo that somebody dropped; `state` is a key of t.create.verdict. */
export class Photo {
  constructor(file) {
    this.file = file;
    this.name = file.name;
    this.type =
      TYPES[file.name.toLowerCase().split(".").pop()] ||
      (Object.values(TYPES).includes(file.type) ? file.type : null);
    this.state = "checking";
    this.sent = 0; // share of it that is uploaded
    this.key = null;
    this.thumb = null;
    this.sides = null;
    this.digest = null;
  }

  get refused() {
    return ["type", "large", "tiny", "twice", "broken"].includes(this.state);
  }

  get ready() {
    return this.key !== null;
  }

  /** Whether it could be of use, be it uploaded or not yet. */
  get usable() {
    return !this.refused && this.state !== "failed";
  }
}

/** The photos of one character to be; `changed` is called with each photo that changed. */
export class Photos {
  constructor(changed) {
    this.all = [];
    this.changed = changed;
    this.running = 0;
  }

  /** Add files; duplicates and what is no photo are shown as such and not uploaded. */
  async add(files) {
    const fresh = [...files].map((file) => new Photo(file));
    this.all.push(...fresh);
    fresh.forEach((photo) => this.changed(photo));
    for (const photo of fresh) await this.judge(photo);
    return fresh;
  }

  remove(photo) {
    this.all = this.all.filter((each) => each !== photo);
    photo.request?.abort();
    // A copy of what is gone is a copy no more.
    const copy = this.all.find((each) => each.state === "twice" && each.digest === photo.digest);
    if (copy) this.accept(copy);
  }

  get usable() {
    return this.all.filter((photo) => photo.usable);
  }

  get ready() {
    return this.all.filter((photo) => photo.ready);
  }

  again(photo) {
    this.accept(photo);
  }

  async judge(photo) {
    photo.state = await this.verdict(photo);
    if (!this.all.includes(photo)) return;
    if (photo.refused) this.changed(photo);
    else this.accept(photo);
  }

  async verdict(photo) {
    if (photo.type === null) return "type";
    if (photo.file.size > LARGEST) return "large";
    try {
      const picture = await createImageBitmap(photo.file);
      photo.sides = [picture.width, picture.height];
      photo.thumb = drawn(picture);
      picture.close();
    } catch {
      // HEIC is a photo that most browsers cannot show; anything else must open.
      return photo.type.startsWith("image/hei") ? "waiting" : "broken";
    }
    if (Math.min(...photo.sides) < TINY) return "tiny";
    photo.digest = await digest(photo.file);
    const copied =
      photo.digest !== null &&
      this.all.some((other) => other !== photo && other.digest === photo.digest && !other.refused);
    return copied ? "twice" : "waiting";
  }

  accept(photo) {
    photo.state = "waiting";
    this.changed(photo);
    this.next();
  }

  next() {
    while (this.running < AT_A_TIME) {
      const photo = this.all.find((each) => each.state === "waiting");
      if (!photo) return;
      this.running += 1;
      photo.state = "sending";
      this.changed(photo);
      this.send(photo)
        .then(
          () => settled(photo),
          () => {
            photo.state = "failed";
          },
        )
        .finally(() => {
          this.running -= 1;
          this.changed(photo);
          this.next();
        });
    }
  }

  async send(photo) {
    const [place] = (
      await api.uploads([
        { content_type: photo.type, bytes: photo.file.size, name: photo.name.slice(0, 255) },
      ])
    ).files;
    try {
      await put(photo, place, () => this.changed(photo));
      photo.key = place.key;
    } catch {
      // A bucket without a CORS rule for this page: the gateway carries the file.
      const form = new FormData();
      form.append("files", new File([photo.file], photo.name, { type: photo.type }));
      photo.key = (await api.form(form)).files[0].key;
    }
    photo.sent = 1;
  }
}

function settled(photo) {
  if (photo.sides === null) photo.state = "unseen";
  else photo.state = Math.min(...photo.sides) < SMALL ? "small" : "good";
}

function put(photo, place, progressed) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of an upload's progress
    photo.request = request;
    request.open(place.method, place.url);
    for (const [name, value] of Object.entries(place.headers))
      request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => {
      photo.sent = event.loaded / Math.max(1, event.total);
      progressed();
    });
    request.addEventListener("load", () =>
      request.status < 300 ? resolve() : reject(new Error(String(request.status))),
    );
    for (const name of ["error", "timeout"])
      request.addEventListener(name, () => reject(new Error(name)));
    request.timeout = 300_000;
    request.send(photo.file);
  });
}

async function digest(file) {
  if (!crypto.subtle) return null; // plain http from afar; the worker finds duplicates then
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function drawn(picture) {
  const scale = Math.min(1, THUMB / Math.min(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.8);
}

const REMEMBERED = "photos-of:";

/** Keep small pictures of a training's photos, so that a reload still shows them. */
export function remember(jobId, photos) {
  try {
    const lines = photos.map((photo) => ({ key: photo.key, name: photo.name, thumb: photo.thumb }));
    sessionStorage.setItem(REMEMBERED + jobId, JSON.stringify(lines));
  } catch {
    // The storage is full: the training's page then shows names alone.
  }
}

/** What `remember` kept of a job's photos, by their keys. */
export function remembered(jobId) {
  try {
    const lines = JSON.parse(sessionStorage.getItem(REMEMBERED + jobId) || "[]");
    return new Map(lines.map((line) => [line.key, line]));
  } catch {
    return new Map();
  }
}

export const verdictWords = (photo) => t.create.why[photo.state] || "";
