// Jobs, newest first, each with what becomes of it.

import { api } from "./api.js";
import { button, h, icon, replace } from "./dom.js";
import * as jobs from "./jobs.js";
import { attempt, bar, doing, empty, when } from "./parts.js";
import { t } from "./texts.js";

const SIGNS = { image: "photo", video: "clip", train: "face", characters: "jobs", health: "pulse" };

export async function open() {
  await jobs.refresh();
  const view = new List();
  return { title: t.jobs.title, element: view.element, close: () => view.stop() };
}

class List {
  constructor() {
    this.lines = new Map();
    this.list = h("ul", { class: "joblist card" });
    this.place = h("div", {});
    this.more = button(t.more, {
      sign: "down",
      onclick: async () => {
        await attempt(() => jobs.older());
        this.draw();
      },
    });
    this.element = h(
      "div",
      { class: "page" },
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, t.jobs.title)),
      this.place,
      h("div", { class: "row middle" }, this.more),
    );
    this.stop = jobs.onJob((job) => this.draw(job.id));
    this.draw();
  }

  draw(changed = null) {
    const all = jobs.newest();
    if (changed) this.lines.delete(changed);
    for (const job of all) if (!this.lines.has(job.id)) this.lines.set(job.id, line(job));
    const held = document.activeElement?.closest?.("[data-job]")?.dataset.job;
    replace(
      this.list,
      all.map((job) => this.lines.get(job.id)),
    );
    if (held) this.list.querySelector(`[data-job="${CSS.escape(held)}"] a`)?.focus();
    replace(this.place, all.length ? this.list : empty("jobs", t.jobs.empty, t.jobs.emptyText));
    this.more.hidden = !jobs.hasOlder();
  }
}

function line(job) {
  const about =
    job.input?.prompt || job.input?.name || job.input?.character_id || job.input?.action || job.id;
  const words = job.error ? job.error.error : jobs.ended(job) ? "" : doing(job);
  return h(
    "li",
    { "data-job": job.id },
    icon(SIGNS[job.task]),
    h(
      "div",
      { class: "grow stack" },
      h(
        "a",
        { href: `#/jobs/${job.id}`, class: "about" },
        h("strong", {}, t.jobs.tasks[job.task]),
        " ",
        about,
      ),
      words ? h("span", { class: job.error ? "why" : "faint" }, words) : null,
      jobs.ended(job) ? null : bar(job.progress?.percent || 0, about),
    ),
    when(job.created_at),
    h("span", { class: `state ${job.state}` }, t.jobs.states[job.state]),
    jobs.ended(job)
      ? null
      : button(t.jobs.cancel, {
          sign: "close",
          quiet: true,
          onclick: () =>
            attempt(async () => jobs.noted(await api.cancel(job.id)), t.jobs.cancelled),
        }),
  );
}
