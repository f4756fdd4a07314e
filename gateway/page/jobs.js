// The jobs that this page knows, and the watching of those that have not ended.
//
// A browser opens six connections to one gateway, all tabs together. So a tab streams the events of
// one job at a time, only while it is looked at; its other open jobs are asked after in turn.

import { api, events, pause, ApiError } from "./api.js";

const ENDED = new Set(["completed", "failed", "cancelled"]);
const TURN_MS = 1500;
const known = new Map();
const listeners = new Set();
const channel = "BroadcastChannel" in window ? new BroadcastChannel("jobs") : null;
let cursor = null;
let streamed = null; // the job whose events come now
let wanted = null; // the job that a view shows large

export const ended = (job) => ENDED.has(job.state);

/** All known jobs, newest first. */
export const newest = () =>
  [...known.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));

export const job = (id) => known.get(id) || null;

/** The newest known picture of a character, alone in it; null when there is none. */
export function pictureOf(characterId) {
  const made = newest().find(
    (each) =>
      each.task === "image" &&
      each.state === "completed" &&
      each.result.character?.character_id === characterId,
  );
  return made?.result.outputs.find((output) => output.kind === "image")?.url || null;
}

/** Told each job that is new or has changed. Returns what ends that. */
export function onJob(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Take note of a job as the API showed it. */
export function noted(found, { tell = true } = {}) {
  const before = known.get(found.id);
  if (before && ended(before) && !ended(found)) return before;
  // A listing tells no progress; what the events told stays until there is more.
  const merged = { ...found };
  if (before && !ended(found) && !found.progress && before.progress) {
    merged.progress = before.progress;
    merged.state = before.state === "running" ? "running" : found.state;
  }
  known.set(found.id, merged);
  if (tell && JSON.stringify(before) !== JSON.stringify(merged))
    listeners.forEach((listener) => listener(merged, before || null));
  return merged;
}

/** A job that was just sent: noted here, and other tabs are told to look. */
export function sent(found) {
  noted(found);
  channel?.postMessage(found.id);
  return found;
}

/** The newest page of jobs; `true` when there are older ones. */
export async function refresh(signal) {
  const page = await api.jobs(null, signal);
  page.jobs.forEach((each) => noted(each));
  cursor ??= page.cursor;
  return page.cursor !== null;
}

/** One more page of older jobs; `false` when that was the last. */
export async function older() {
  if (cursor === null) return false;
  const page = await api.jobs(cursor);
  cursor = page.cursor;
  page.jobs.forEach((each) => noted(each));
  return cursor !== null;
}

export const hasOlder = () => cursor !== null;

/** Which job's events matter most now; null for none in particular. */
export function prefer(id) {
  if (wanted === id) return;
  wanted = id;
  if (streamed && streamed.id !== id && id !== null) streamed.stop.abort();
}

async function stream(id) {
  const stop = new AbortController();
  streamed = { id, stop };
  try {
    for await (const each of events(id, stop.signal)) noted(each);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) known.delete(id);
  } finally {
    streamed = null;
  }
}

function choice(open) {
  return (
    open.find((each) => each.id === wanted) ||
    open.find((each) => each.state === "running") ||
    open[open.length - 1]
  );
}

async function round() {
  const open = newest().filter((each) => !ended(each));
  if (document.hidden || open.length === 0) return;
  if (streamed === null) stream(choice(open).id);
  for (const each of open) {
    if (streamed?.id === each.id || document.hidden) continue;
    await api
      .job(each.id)
      .then(noted)
      .catch(() => {});
  }
}

/** Watch open jobs for as long as the page lives. */
export async function watching() {
  channel?.addEventListener("message", (event) =>
    api
      .job(event.data)
      .then(noted)
      .catch(() => {}),
  );
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) streamed?.stop.abort();
    else refresh().catch(() => {});
  });
  for (;;) {
    await round();
    await pause(TURN_MS);
  }
}
