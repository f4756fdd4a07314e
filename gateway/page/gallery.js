// Pictures and clips as tiles: those that are there, those that are being made, those that failed.

import { button, h, icon, replace } from "./dom.js";
import { details } from "./details.js";
import { ended } from "./jobs.js";
import { bar, doing } from "./parts.js";
import { t } from "./texts.js";

const SHOWN = new Set(["image", "video"]);

/** What of a job's outputs is to be looked at. */
export const shownOf = (job) =>
  (job.result?.outputs || []).filter((output) => SHOWN.has(output.kind) && output.key);

/**
 * A grid that keeps its tiles while jobs change, so that nothing jumps or loads twice.
 *
 * `actions` are what a job's details offer: again, reuse, video, hide.
 */
export class Gallery {
  constructor(actions) {
    this.actions = actions;
    this.groups = new Map(); // job id → { state, tiles }
    this.element = h("div", { class: "gallery" });
  }

  /** Show these jobs, in this order. */
  show(jobs) {
    const wanted = jobs.map((job) => this.tilesOf(job)).flat();
    const present = [...this.element.children];
    if (wanted.length !== present.length || wanted.some((tile, index) => tile !== present[index]))
      replace(this.element, wanted);
    const ids = new Set(jobs.map((job) => job.id));
    [...this.groups.keys()].filter((id) => !ids.has(id)).forEach((id) => this.groups.delete(id));
    this.order = jobs;
  }

  /** The job's tiles again, after a change of that job. */
  tilesOf(job) {
    const before = this.groups.get(job.id);
    if (before && before.state === job.state && (ended(job) || before.update)) {
      before.update?.(job);
      before.job = job;
      return before.tiles;
    }
    const group = this.made(job);
    this.groups.set(job.id, { ...group, state: job.state, job });
    return group.tiles;
  }

  made(job) {
    if (job.state === "completed")
      return { tiles: shownOf(job).map((output, index) => this.picture(job, output, index)) };
    if (ended(job)) return { tiles: [this.refused(job)] };
    return this.waiting(job);
  }

  picture(job, output, index) {
    const prompt = job.result?.prompt || job.input?.prompt || "";
    const moving = output.kind === "video" && !output.content_type.startsWith("image/");
    const media = moving
      ? h("video", {
          src: output.url,
          muted: true,
          loop: true,
          playsinline: true,
          preload: "metadata",
          tabindex: "-1",
        })
      : h("img", { src: output.url, alt: "", loading: "lazy" });
    if (moving) media.muted = true;
    const tile = h(
      "button",
      {
        type: "button",
        class: "tile",
        "aria-label": t.studio.open(prompt),
        onclick: () => this.open(job.id, index),
        onmouseenter: () => moving && media.play().catch(() => {}),
        onmouseleave: () => moving && media.pause(),
      },
      media,
      moving ? h("span", { class: "badge" }, icon("clip"), t.studio.clip) : null,
      h("span", { class: "caption", "aria-hidden": "true" }, prompt),
    );
    if (output.width && output.height)
      media.style.aspectRatio = `${output.width} / ${output.height}`;
    media.addEventListener("error", () => tile.classList.add("gone"), { once: true });
    return tile;
  }

  waiting(job) {
    const count = job.task === "video" ? 1 : job.input?.count || 1;
    const tiles = Array.from({ length: count }, () => {
      const words = h("span", { class: "doing" });
      const share = bar(0, job.input?.prompt || "");
      const tile = h(
        "div",
        { class: "tile making", role: "group", "aria-label": job.input?.prompt || "" },
        h("span", { class: "shimmer", "aria-hidden": "true" }),
        h("span", { class: "below" }, words, share),
      );
      if (job.input?.width && job.input?.height)
        tile.style.aspectRatio = `${job.input.width} / ${job.input.height}`;
      return { tile, words, share };
    });
    tiles[0].tile.append(
      button(t.cancel, {
        sign: "close",
        quiet: true,
        kind: "over",
        onclick: () => this.actions.cancel(job.id),
      }),
    );
    const update = (now) =>
      tiles.forEach(({ words, share }) => {
        words.textContent = doing(now);
        share.value = now.progress?.percent || 0;
      });
    update(job);
    return { tiles: tiles.map(({ tile }) => tile), update };
  }

  refused(job) {
    const words =
      job.state === "cancelled" ? t.jobs.states.cancelled : job.error?.error || t.unforeseen;
    return h(
      "div",
      { class: "tile refused", role: "group", "aria-label": t.studio.notMade },
      h(
        "span",
        { class: "below" },
        icon(job.state === "cancelled" ? "close" : "warn"),
        h("strong", {}, t.studio.notMade),
        h("span", { class: "reason" }, words),
        h(
          "span",
          { class: "row" },
          button(t.retry, { sign: "redo", onclick: () => this.actions.again(job, { same: true }) }),
          this.actions.hide &&
            button(t.studio.hide, {
              sign: "close",
              quiet: true,
              onclick: () => this.actions.hide(job.id),
            }),
        ),
      ),
    );
  }

  open(jobId, index) {
    const shown = this.order
      .filter((job) => job.state === "completed")
      .flatMap((job) => shownOf(job).map((output, number) => ({ job, output, number })));
    details(
      shown,
      shown.findIndex((each) => each.job.id === jobId && each.number === index),
      this.actions,
    );
  }
}
