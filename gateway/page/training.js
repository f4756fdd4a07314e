// One job, followed until its end. A training shows its photos, its stages and its loss.

import { api } from "./api.js";
import { button, confirmed, h, icon, replace, say } from "./dom.js";
import { Gallery } from "./gallery.js";
import * as jobs from "./jobs.js";
import { attempt, bar, doing, lossChart, when } from "./parts.js";
import { remembered } from "./photos.js";
import { again } from "./studio.js";
import { t } from "./texts.js";

const STAGES = Object.keys(t.training.stages);

export async function open(id) {
  const job = jobs.noted(await api.job(id));
  const view = job.task === "train" ? new Training(job) : new Plain(job);
  jobs.prefer(id);
  const stop = jobs.onJob((each, before) => {
    if (each.id === id) view.changed(each, before);
  });
  view.changed(job, null);
  return {
    title: view.title,
    element: view.element,
    close: () => {
      stop();
      jobs.prefer(null);
    },
  };
}

const stopButton = (job, words) =>
  button(words, {
    sign: "close",
    onclick: async () => {
      const ask = t.training.stopAsk;
      if (job.task === "train" && !(await confirmed(ask.title, ask.text, ask.yes, ask.no))) return;
      attempt(async () => jobs.noted(await api.cancel(job.id)), t.jobs.cancelled);
    },
  });

class Training {
  constructor(job) {
    this.name = job.input.name || job.input.character_id;
    this.title = t.training.title(this.name);
    this.thumbs = remembered(job.id);
    this.points = new Map();
    this.head = h("h1", { tabindex: "-1" }, this.title);
    this.now = h("p", { class: "now" });
    this.share = bar(0, this.title);
    this.stages = h(
      "ol",
      { class: "stages" },
      STAGES.map((stage) => h("li", { "data-stage": stage }, t.training.stages[stage])),
    );
    this.chart = h("figure", { class: "card loss-card" });
    this.result = h("div", { class: "stack" });
    this.photos = h("section", {});
    this.running = h(
      "div",
      { class: "stack" },
      h(
        "div",
        { class: "card stack" },
        this.now,
        this.share,
        this.stages,
        h("div", { class: "row end" }, stopButton(job, t.training.stop)),
      ),
      this.chart,
    );
    this.element = h(
      "div",
      { class: "page training" },
      h("div", { class: "head" }, this.head),
      this.running,
      this.result,
      this.photos,
    );
  }

  changed(job, before) {
    if (!jobs.ended(job)) this.progress(job);
    else if (!before || !jobs.ended(before) || !this.finished) this.end(job, before);
    if (!jobs.ended(job) || !this.finished) this.drawPhotos(job);
    this.finished = jobs.ended(job);
  }

  progress(job) {
    const { stage, percent = 0, step, steps, eta_s, loss } = job.progress || {};
    this.share.value = percent;
    const words = [
      doing(job),
      step ? t.training.step(step, steps) : null,
      eta_s ? t.minutes(eta_s) : null,
    ].filter(Boolean);
    this.now.textContent = words.join(" · ");
    const at = STAGES.indexOf(stage);
    [...this.stages.children].forEach((line, index) => {
      line.className = index < at ? "done" : index === at ? "at" : "";
      if (index === at) line.setAttribute("aria-current", "step");
      else line.removeAttribute("aria-current");
    });
    if (step && loss !== undefined) this.points.set(step, loss);
    const points = [...this.points].sort((a, b) => a[0] - b[0]);
    this.steps = steps || this.steps || 1;
    const last = points[points.length - 1];
    replace(
      this.chart,
      h(
        "figcaption",
        {},
        h("strong", {}, t.training.loss),
        h("span", { class: "faint" }, last ? last[1].toFixed(4) : t.training.lossWaiting),
      ),
      lossChart(points, this.steps),
    );
  }

  end(job, before) {
    this.running.remove();
    if (job.state === "completed") this.done(job);
    else this.failed(job);
    if (before && !jobs.ended(before)) say(this.head.textContent);
  }

  done(job) {
    const { character, outputs, training = {}, warnings = [] } = job.result;
    const url = (kind) => outputs.find((output) => output.kind === kind)?.url;
    this.head.textContent = t.training.done(character.name);
    const facts = Object.entries(t.training.fact).filter(
      ([name]) => training[name] !== undefined && training[name] !== null,
    );
    replace(
      this.result,
      h(
        "div",
        { class: "card row" },
        h("p", { class: "grow" }, t.training.doneText),
        h(
          "a",
          { class: "button primary", href: `#/?character=${character.character_id}` },
          icon("spark"),
          h("span", {}, t.training.use),
        ),
        h(
          "a",
          { class: "button", href: `#/characters/${character.character_id}` },
          icon("face"),
          h("span", {}, t.training.show),
        ),
      ),
      warnings.map((words) => h("p", { class: "warning" }, icon("warn"), words)),
      h(
        "div",
        { class: "sheets" },
        url("sheet") &&
          h(
            "figure",
            { class: "card" },
            h("img", { src: url("sheet"), alt: t.training.sheet }),
            h("figcaption", { class: "faint" }, t.training.sheet),
          ),
        h(
          "div",
          { class: "stack" },
          url("curve") &&
            h(
              "figure",
              { class: "card" },
              h("img", { src: url("curve"), alt: t.training.curve }),
              h("figcaption", { class: "faint" }, t.training.curve),
            ),
          h(
            "section",
            { class: "card" },
            h("h2", {}, t.training.facts),
            h(
              "dl",
              {},
              facts.map(([name, words]) => [
                h("dt", {}, words),
                h("dd", {}, String(training[name])),
              ]),
            ),
          ),
        ),
      ),
    );
  }

  failed(job) {
    const cancelled = job.state === "cancelled";
    this.head.textContent = cancelled ? t.training.cancelled : t.training.failed;
    replace(
      this.result,
      h(
        "div",
        { class: `card stack ${cancelled ? "" : "trouble"}` },
        cancelled
          ? null
          : h(
              "p",
              { class: "row" },
              icon("warn"),
              h("strong", {}, job.error?.error || t.unforeseen),
            ),
        h(
          "div",
          { class: "row" },
          button(t.training.again, {
            sign: "redo",
            kind: "primary",
            onclick: () => this.again(job),
          }),
          h(
            "a",
            {
              class: "button",
              href: `#/new?name=${encodeURIComponent(this.name)}&noun=${encodeURIComponent(job.input.class_noun || "")}`,
            },
            icon("add"),
            h("span", {}, t.characters.add),
          ),
        ),
      ),
    );
  }

  async again(job) {
    const { task, request_id, ...body } = job.input;
    await attempt(async () => {
      const next = jobs.sent(await api.train(body));
      const kept = sessionStorage.getItem(`photos-of:${job.id}`);
      if (kept) sessionStorage.setItem(`photos-of:${next.id}`, kept);
      location.hash = `#/jobs/${next.id}`;
    });
  }

  drawPhotos(job) {
    const verdicts = new Map(
      (job.result?.dataset?.photos || job.error?.details?.photos || job.progress?.photos || []).map(
        (each) => [each.index, each],
      ),
    );
    const lines = (job.input.images || []).map((image, index) => {
      const known = this.thumbs.get(image.key);
      const verdict = verdicts.get(index);
      const state =
        { kept: "good", warned: "small", rejected: "twice" }[verdict?.verdict] || "unseen";
      const why = (verdict?.reasons || []).map((reason) => reason.message).join(" ");
      return h(
        "li",
        { "data-state": verdict ? state : "plain", title: why },
        h(
          "span",
          { class: "thumb" },
          known?.thumb ? h("img", { src: known.thumb, alt: "" }) : icon("photo"),
        ),
        h(
          "span",
          { class: "below" },
          verdict && h("span", { class: "verdict" }, t.training.verdict[verdict.verdict]),
          h("span", { class: why ? "why" : "name" }, why || known?.name || String(index + 1)),
        ),
      );
    });
    if (lines.length)
      replace(this.photos, h("h2", {}, t.training.photos), h("ul", { class: "photos" }, lines));
  }
}

class Plain {
  constructor(job) {
    this.title = t.jobs.tasks[job.task];
    this.place = h("div", { class: "stack" });
    this.gallery = new Gallery({
      again: (each, { same = false }) =>
        attempt(() => again(each, same), t.studio.sent(each.input.count || 1)),
      video: async (body) => jobs.sent(await api.video(body)),
      cancel: (id) => attempt(async () => jobs.noted(await api.cancel(id)), t.jobs.cancelled),
    });
    this.element = h(
      "div",
      { class: "page" },
      h("div", { class: "head" }, h("h1", { tabindex: "-1" }, this.title)),
      this.place,
    );
  }

  changed(job) {
    const pictures = job.task === "image" || job.task === "video";
    if (pictures) this.gallery.show([job]);
    replace(
      this.place,
      h(
        "div",
        { class: "card stack" },
        h(
          "p",
          { class: "row" },
          h("span", { class: `state ${job.state}` }, t.jobs.states[job.state]),
          h("span", { class: "grow faint" }, jobs.ended(job) ? "" : doing(job)),
          when(job.created_at),
          jobs.ended(job) ? null : stopButton(job, t.jobs.cancel),
        ),
        jobs.ended(job) ? null : bar(job.progress?.percent || 0, this.title),
        job.error && h("p", { class: "warning" }, icon("warn"), job.error.error),
        job.error && h("p", { class: "faint" }, t.jobs.code(job.error.code)),
      ),
      pictures ? this.gallery.element : null,
      h(
        "details",
        { class: "card" },
        h("summary", {}, t.jobs.input),
        h("pre", {}, JSON.stringify(job.input, null, 2)),
      ),
    );
  }
}
