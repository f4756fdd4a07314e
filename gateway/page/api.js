// The gateway's API as the page uses it: requests, events, and one kind of error.

import { t } from "./texts.js";

/** What the gateway refused; the message is its sentence. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || t.unforeseen);
    this.status = status;
    this.code = problem.code || "internal";
    this.field = problem.field || null;
    this.details = problem.details || null;
  }
}

/** The gateway could not be reached at all. */
export class Unreachable extends Error {
  constructor() {
    super(t.offline);
  }
}

const KEY = "gateway-key";
const TRIES = 3;
const listeners = new Set();
let online = true;

/** Told `"online"`, `"offline"` or `"key"` (one is needed) whenever that changes. */
export function onConnection(listener) {
  listeners.add(listener);
}

function connection(state) {
  const was = online;
  if (state !== "key") online = state === "online";
  if (state === "key" || was !== online) listeners.forEach((listener) => listener(state));
}

export const key = {
  get: () => sessionStorage.getItem(KEY) || "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

const headersOf = (more = {}) =>
  key.get() ? { Authorization: `Bearer ${key.get()}`, ...more } : more;

/** A text that no other request has; also where `crypto.randomUUID` is withheld (plain http). */
export function unique() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

async function reach(path, options) {
  try {
    const reply = await fetch(path, {
      ...options,
      headers: headersOf(options.headers),
      cache: "no-store",
      credentials: "omit",
    });
    connection("online");
    return reply;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    connection("offline");
    throw new Unreachable();
  }
}

async function refusal(reply) {
  const problem = await reply.json().catch(() => ({}));
  if (reply.status === 401) connection("key");
  return new ApiError(reply.status, problem);
}

async function request(method, path, body, signal) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  // One key for all tries: a reply that was lost on its way must not make a second job.
  if (method === "POST") headers["Idempotency-Key"] = unique();
  const options = {
    method,
    headers,
    signal,
    body: body === undefined ? undefined : JSON.stringify(body),
  };
  for (let left = TRIES - 1; ; left -= 1) {
    try {
      const reply = await reach(path, options);
      if (reply.ok) return reply.status === 204 ? null : await reply.json();
      if (reply.status !== 429 || left === 0) throw await refusal(reply);
      await pause(1000 * Math.min(10, Number(reply.headers.get("Retry-After")) || 1), signal);
    } catch (error) {
      if (!(error instanceof Unreachable) || left === 0) throw error;
      await pause(400 * (TRIES - left), signal);
    }
  }
}

export const get = (path, signal) => request("GET", path, undefined, signal);
export const post = (path, body = {}) => request("POST", path, body);
export const patch = (path, body) => request("PATCH", path, body);
export const remove = (path) => request("DELETE", path);

/** Wait; ends early, quietly, when the signal says so. */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}

const part = (id) => encodeURIComponent(id);

export const api = {
  characters: (cursor, status, signal) =>
    get(
      `/characters?limit=60${status ? `&status=${status}` : ""}${cursor ? `&cursor=${part(cursor)}` : ""}`,
      signal,
    ),
  character: (id, signal) => get(`/characters/${part(id)}`, signal),
  outputs: (id, cursor, signal) =>
    get(
      `/characters/${part(id)}/outputs?limit=24${cursor ? `&cursor=${part(cursor)}` : ""}`,
      signal,
    ),
  train: (body) => post("/characters", body),
  rename: (id, name) => patch(`/characters/${part(id)}`, { name }),
  activate: (id, version) => post(`/characters/${part(id)}/activate`, { version }),
  rollback: (id) => post(`/characters/${part(id)}/rollback`),
  restore: (id) => post(`/characters/${part(id)}/restore`),
  remove: (id) => remove(`/characters/${part(id)}`),
  erase: (id) => post(`/characters/${part(id)}/erase`),
  image: (body) => post("/generate-image", body),
  video: (body) => post("/generate-video", body),
  jobs: (cursor, signal) => get(`/jobs?limit=30${cursor ? `&cursor=${part(cursor)}` : ""}`, signal),
  job: (id, signal) => get(`/jobs/${part(id)}`, signal),
  cancel: (id) => post(`/jobs/${part(id)}/cancel`),
  uploads: (files) => post("/uploads", { files }),
  form: (form) =>
    reach("/uploads", { method: "POST", body: form }).then(async (reply) => {
      if (!reply.ok) throw await refusal(reply);
      return reply.json();
    }),
};

/**
 * A job's events until it has ended, each the whole job. Read with fetch, since EventSource cannot
 * send a key. After a broken connection it goes on behind the last event that came.
 */
export async function* events(id, signal) {
  let last = null;
  let wait = 500;
  while (!signal.aborted) {
    try {
      const reply = await reach(`/jobs/${part(id)}/events`, {
        headers: last ? { "Last-Event-ID": last } : {},
        signal,
      });
      if (reply.status === 204) return;
      if (!reply.ok) throw await refusal(reply);
      for await (const event of parsed(reply.body)) {
        last = event.id;
        wait = 500;
        yield event.job;
        if (event.name !== "progress") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status !== 429 && error.status < 500) throw error;
    }
    await pause(wait, signal);
    wait = Math.min(wait * 2, 10_000);
  }
}

async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const fields = Object.fromEntries(
          text
            .slice(0, end)
            .split("\n")
            .map((line) => line.split(/: (.*)/s).slice(0, 2)),
        );
        text = text.slice(end + 2);
        if (fields.data) yield { id: fields.id, name: fields.event, job: JSON.parse(fields.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
