// One picture or clip, large, with what made it and what can be done with it.

import { button, h, icon, replace } from "./dom.js";
import { attempt, notice, when } from "./parts.js";
import { t } from "./texts.js";

/**
 * Open the dialog at `shown[at]`; each is { job, output }. Arrow keys lead to the others.
 */
export function details(shown, at, actions) {
  const body = h("div", { class: "details" });
  const dialog = h(
    "dialog",
    {
      class: "lightbox",
      "aria-label": t.details.title,
      onclose: () => dialog.remove(),
      onclick: (event) => {
        if (event.target === dialog) dialog.close();
      },
      onkeydown: (event) => {
        if (event.target.matches("input, select, textarea, video")) return;
        if (event.key === "ArrowLeft") go(-1);
        if (event.key === "ArrowRight") go(1);
      },
    },
    body,
  );
  let place = at;

  function go(by) {
    const next = place + by;
    if (next < 0 || next >= shown.length) return;
    place = next;
    show();
    body.querySelector(by < 0 ? ".previous" : ".following")?.focus();
  }

  function show() {
    const { job, output } = shown[place];
    const step = (by, words, name, sign) =>
      button(words, {
        sign,
        quiet: true,
        kind: `over ${name}`,
        disabled: !shown[place + by],
        onclick: () => go(by),
      });
    replace(
      body,
      h(
        "figure",
        {},
        medium(output),
        step(-1, t.details.previous, "previous", "back"),
        step(1, t.details.next, "following", "next"),
      ),
      h(
        "aside",
        {},
        h(
          "div",
          { class: "row end" },
          button(t.close, { sign: "close", quiet: true, onclick: () => dialog.close() }),
        ),
        facts(job, output),
        offers(job, output, actions, dialog),
      ),
    );
  }

  show();
  document.body.append(dialog);
  dialog.showModal();
}

function medium(output) {
  if (output.kind === "video" && !output.content_type.startsWith("image/"))
    return h("video", {
      src: output.url,
      controls: true,
      loop: true,
      autoplay: true,
      playsinline: true,
    });
  return h("img", { src: output.url, alt: output.prompt || t.details.title });
}

function facts(job, output) {
  const { result = {}, input = {} } = job;
  const used = result.characters || (result.character ? [result.character] : []);
  const seed = output.seed ?? result.seed ?? input.seed;
  const lines = [
    [t.details.prompt, result.prompt || input.prompt],
    [
      t.details.character,
      used.map((each) =>
        h(
          "a",
          { class: "chip small", href: `#/characters/${each.character_id}` },
          `${each.character_id} · ${Number(each.strength).toFixed(2)}`,
        ),
      ),
    ],
    [
      t.details.seed,
      seed !== undefined && seed !== null
        ? h(
            "span",
            { class: "copy" },
            h("code", {}, String(seed)),
            button(t.details.copy, {
              sign: "jobs",
              quiet: true,
              kind: "small",
              onclick: () =>
                attempt(() => navigator.clipboard.writeText(String(seed)), t.details.copied),
            }),
          )
        : null,
    ],
    [
      t.details.size,
      output.width
        ? `${output.width} × ${output.height}, ${t.bytes(output.bytes)}`
        : t.bytes(output.bytes),
    ],
    [t.details.duration, output.frames ? t.details.frames(output.frames, output.fps) : null],
    [t.details.likeness, likeness(output.likeness)],
    [t.details.workflow, result.workflow?.name],
    [t.details.made, job.created_at ? when(job.created_at) : null],
  ];
  const shown = lines.filter(([, value]) => value && (!Array.isArray(value) || value.length));
  return h(
    "dl",
    {},
    shown.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}

/** How alike a picture is to its characters' photos, or why that is not known. */
function likeness(measured) {
  if (!measured) return null;
  return measured.score === undefined ? measured.reason : measured.score.toFixed(2);
}

function offers(job, output, actions, dialog) {
  const closing = (action) => () => {
    dialog.close();
    action();
  };
  const known = Boolean(job.input);
  const manifest = job.result?.manifest?.url;
  const still = output.kind === "image";
  const form = still && actions.video ? clipForm(output, actions, dialog) : null;
  return h(
    "div",
    { class: "offers" },
    h(
      "div",
      { class: "row" },
      known &&
        button(t.details.again, {
          sign: "redo",
          kind: "primary",
          title: t.details.againHint,
          onclick: closing(() => actions.again(job, {})),
        }),
      form &&
        button(t.details.video, {
          sign: "clip",
          "aria-expanded": "false",
          onclick: (event) => {
            form.hidden = !form.hidden;
            event.currentTarget.setAttribute("aria-expanded", String(!form.hidden));
            if (!form.hidden) form.querySelector("input").focus();
          },
        }),
    ),
    form,
    h(
      "div",
      { class: "row" },
      h(
        "a",
        {
          class: "button",
          href: output.url,
          download: output.key.split("/").pop(),
          target: "_blank",
          rel: "noopener",
          onclick: (event) => saved(event, output),
        },
        icon("down"),
        h("span", {}, t.details.download),
      ),
      known &&
        job.task === "image" &&
        actions.reuse &&
        button(t.details.reuse, { sign: "undo", onclick: closing(() => actions.reuse(job)) }),
      manifest &&
        h(
          "a",
          { class: "button", href: manifest, target: "_blank", rel: "noopener" },
          icon("jobs"),
          h("span", {}, t.details.manifest),
        ),
    ),
  );
}

/** Save the file under its name; where the bucket does not let the page read it, it opens instead. */
async function saved(event, output) {
  event.preventDefault();
  try {
    const url = URL.createObjectURL(
      await (await fetch(output.url, { credentials: "omit" })).blob(),
    );
    const name = output.key.split("/").slice(-3).join("-");
    const link = h("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch {
    window.open(output.url, "_blank", "noopener");
  }
}

function clipForm(output, actions, dialog) {
  const number = (name, label, least, most, value) =>
    h(
      "label",
      { class: "field" },
      h("span", {}, label),
      h("input", {
        type: "number",
        name,
        min: String(least),
        max: String(most),
        value: String(value),
        required: true,
      }),
    );
  return h(
    "form",
    {
      class: "clip",
      hidden: true,
      onsubmit: async (event) => {
        event.preventDefault();
        const given = new FormData(event.target);
        const body = {
          image: { key: output.key },
          frames: Number(given.get("frames")),
          fps: Number(given.get("fps")),
          motion: Number(given.get("motion")),
          format: given.get("format"),
        };
        if (await attempt(() => actions.video(body))) {
          dialog.close();
          notice(t.details.sent);
        }
      },
    },
    h(
      "div",
      { class: "options" },
      number("frames", t.details.frameCount, 2, 50, 25),
      number("fps", t.details.fps, 1, 60, 8),
      number("motion", t.details.motion, 1, 255, 127),
      h(
        "label",
        { class: "field" },
        h("span", {}, t.details.videoFormat),
        h(
          "select",
          { name: "format" },
          ["mp4", "webm", "webp"].map((each) => h("option", { value: each }, each.toUpperCase())),
        ),
      ),
    ),
    h(
      "button",
      { class: "button primary", type: "submit" },
      icon("clip"),
      h("span", {}, t.details.go),
    ),
  );
}
