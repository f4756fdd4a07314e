// Pieces that several views show.

import { button, h, icon, say, svg } from "./dom.js";
import { pictureOf } from "./jobs.js";
import { t } from "./texts.js";

/** What stands there while a view loads; a moment late, so that quick ones don't flicker. */
export const busy = () =>
  h(
    "div",
    { class: "busy", role: "status" },
    h("span", { class: "unseen" }, t.loading),
    h("i"),
    h("i"),
    h("i"),
  );

/** An empty state: a sign, what is missing, and what to do. */
export const empty = (sign, title, text, action = null) =>
  h(
    "section",
    { class: "empty" },
    h("div", { class: "medal" }, icon(sign)),
    h("h2", {}, title),
    h("p", {}, text),
    action,
  );

/** An error with the way on. */
export const failure = (error, retry) =>
  h(
    "section",
    { class: "empty failure", role: "alert" },
    h("div", { class: "medal bad" }, icon("warn")),
    h("h2", {}, t.failed.title),
    h("p", {}, error.message || t.unforeseen),
    button(t.retry, { sign: "redo", kind: "primary", onclick: retry }),
  );

/** A sentence at the lower edge for some seconds, and for the screen reader. */
export function notice(words, { bad = false } = {}) {
  document.querySelectorAll(".notice").forEach((old) => old.remove());
  const line = h(
    "div",
    { class: `notice ${bad ? "bad" : ""}` },
    icon(bad ? "warn" : "check"),
    h("span", {}, words),
  );
  (document.querySelector("dialog[open]") || document.body).append(line);
  say(words);
  setTimeout(() => line.remove(), bad ? 8000 : 4000);
}

/** Do something that may fail; its failure is a notice. Resolves to whether it went well. */
export async function attempt(action, words = null) {
  try {
    await action();
    if (words) notice(words);
    return true;
  } catch (error) {
    notice(error.message || t.unforeseen, { bad: true });
    return false;
  }
}

/**
 * A character's face: out of its preview sheet (the first picture with the character; style/parts.css
 * knows where on the sheet), else its newest picture, else its initial on a colour of its own.
 */
export function face(character, size = "") {
  const initial = [...(character.name || character.character_id)][0].toUpperCase();
  const place = h("span", { class: `face ${size}` }, h("span", { "aria-hidden": "true" }, initial));
  place.style.setProperty("--hue", hue(character.character_id));
  const sheet = character.preview?.url;
  const url = sheet || pictureOf(character.character_id);
  if (url) {
    const picture = h("img", {
      src: url,
      alt: "",
      loading: "lazy",
      class: sheet ? "sheet" : "whole",
    });
    picture.addEventListener("error", () => picture.remove());
    place.append(picture);
  }
  return place;
}

function hue(text) {
  return [...text].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
}

/** When something was, for people; the exact time is in the title. */
export function when(iso) {
  const at = new Date(iso);
  const exact = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return h("time", { datetime: iso, title: exact }, t.ago(Date.now() - at) || exact);
}

/** A bar of 0 to 100, with its name for the screen reader. */
export const bar = (percent, label) =>
  h("progress", { max: "100", value: String(percent), "aria-label": label });

const WIDE = 640;
const HIGH = 200;

/** The loss as a line: `points` are [step, loss], `steps` the whole length. */
export function lossChart(points, steps) {
  const chart = svg("svg", {
    class: "loss",
    viewBox: `0 0 ${WIDE} ${HIGH}`,
    preserveAspectRatio: "none",
    role: "img",
  });
  if (points.length < 2) {
    chart.setAttribute("aria-label", t.training.lossWaiting);
    return chart;
  }
  const last = points[points.length - 1];
  const values = points.map(([, loss]) => loss);
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const x = (step) => (step / Math.max(steps, 1)) * WIDE;
  const y = (loss) => 12 + (1 - (loss - low) / span) * (HIGH - 24);
  const line = points
    .map(([step, loss], index) => `${index ? "L" : "M"}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`)
    .join("");
  chart.setAttribute("aria-label", t.training.lossText(last[0], steps, last[1].toFixed(4)));
  for (const share of [0.25, 0.5, 0.75])
    chart.append(svg("path", { class: "rule", d: `M0 ${HIGH * share}H${WIDE}` }));
  chart.append(
    svg("path", {
      class: "under",
      d: `${line}L${x(last[0]).toFixed(1)} ${HIGH}L${x(points[0][0]).toFixed(1)} ${HIGH}Z`,
    }),
    svg("path", { class: "line", d: line }),
  );
  return chart;
}

/** What a job is doing, in words. */
export function doing(job) {
  if (job.state === "queued") return job.note || t.training.queued;
  const stage = job.progress?.stage;
  const words = job.task === "train" ? t.training.stages : t.jobs.stages;
  return words[stage] || t.jobs.states[job.state];
}
