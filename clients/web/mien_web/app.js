// @ts-check
/**
 * The watch page: which session is shown, in which state, and what the page says about it.
 *
 * Fragment: `#session=ID` preselects a session, `&token=T` watches it in a closed deployment, `&play=1` starts at once.
 *
 * For automated tests and for the curious, `window.mien` is kept current:
 * - `state`: a {@link PageState}
 * - `stats`: the newest {@link PlaybackStats} while `state` is "playing", measured every second; else, and before the first, null
 * - `sessionId`: the selected session, or null
 */

import { ApiError, avatarPictureUrl, getIceServers, getSession, listSessions } from "./api.js";
import { StatsReader } from "./stats.js";
import { WhepClient } from "./whep.js";

/** @typedef {import("./api.js").Session} Session */
/** @typedef {import("./stats.js").PlaybackStats} PlaybackStats */

/**
 * - `loading`: the first answer of the server is awaited
 * - `offline`: the server cannot be reached and nothing is known to watch
 * - `locked`: a closed deployment; a session id and a watch token are asked for
 * - `empty`: no sessions
 * - `ready`: a session is selected; play starts it
 * - `connecting`: play was pressed, no frame yet
 * - `playing`: frames are presented
 * - `waiting`, `busy`, `reconnecting`, `ended`, `denied`, `failed`: as in whep.js
 * @typedef {"loading"|"offline"|"locked"|"empty"|"ready"|"connecting"|"playing"|"waiting"|"busy"|"reconnecting"|"ended"
 *   |"denied"|"failed"} PageState
 */

const POLL_MS = 2000;
const POLL_LIMIT_MS = 15_000;
const STATS_MS = 1000;
const SPARK_SAMPLES = 60;
const TOKEN_KEY = "mien.watch";

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
const byId = (id) => /** @type {T} */ (document.getElementById(id));

/** @type {HTMLVideoElement} */
const video = byId("stage-video");
/** @type {HTMLImageElement} */
const poster = byId("stage-poster");

// ---------------------------------------------------------------- model

/** @type {Session[]} */
let sessions = [];
/** @type {"unknown"|"open"|"locked"|"token"} how sessions are found */
let access = "unknown";
/** @type {string|null} */
let token = null;
let accessError = "";
let reachable = true;
/** @type {string|null} */
let selectedId = null;
/** The session that a link or a click asked for; it is selected whenever it is listed. @type {string|null} */
let wantedId = null;
/** Play was pressed and stop was not. */
let watching = false;
let autoplay = false;
/** @type {WhepClient|null} */
let client = null;
/** @type {StatsReader|null} */
let reader = null;
/** @type {PlaybackStats|null} */
let stats = null;

const selected = () => sessions.find((session) => session.session_id === selectedId) ?? null;

/** @returns {PageState} */
function pageState() {
  if (client !== null && client.state !== "idle") {
    if (client.state === "connected") return (reader?.framesPresented ?? 0) > 0 ? "playing" : "connecting";
    return client.state;
  }
  if (access === "locked") return "locked";
  if (watching) return "connecting";
  if (selectedId !== null) return "ready";
  if (!reachable) return "offline";
  return access === "unknown" ? "loading" : "empty";
}

Object.defineProperty(window, "mien", {
  value: Object.freeze({
    get state() {
      return pageState();
    },
    get stats() {
      return pageState() === "playing" ? stats : null;
    },
    get sessionId() {
      return selectedId;
    },
  }),
});

// ---------------------------------------------------------------- finding sessions

/** @type {number|undefined} */
let pollTimer;
let pollFailures = 0;
/** Counts polls, so that the answer to an outdated one is ignored. */
let pollNumber = 0;

async function poll() {
  window.clearTimeout(pollTimer);
  pollNumber += 1;
  const number = pollNumber;
  try {
    const found = token !== null && wantedId !== null ? [await getSession(wantedId, token)] : await listSessions();
    if (number !== pollNumber) return;
    access = token === null ? "open" : "token";
    accessError = "";
    onSessions(found);
    reachable = true;
    pollFailures = 0;
  } catch (error) {
    if (number !== pollNumber) return;
    onPollError(error);
  }
  render();
  if (!document.hidden && access !== "locked") {
    pollTimer = window.setTimeout(poll, Math.min(POLL_LIMIT_MS, POLL_MS * 2 ** pollFailures));
  }
}

/** @param {unknown} error */
function onPollError(error) {
  const status = error instanceof ApiError ? error.status : 0;
  const refused = status === 401 || status === 403;
  if ((refused || (status === 404 && token !== null)) && client !== null) {
    // Whoever watches already goes on: a token may expire meanwhile, and an ended session may come back.
    if (!refused) sessions = [];
  } else if (refused || (status === 404 && token !== null)) {
    if (token !== null) {
      accessError = refused
        ? "This token was not accepted for this session."
        : "There is no such session, or it has ended.";
    }
    forgetToken();
    stopWatching();
    access = "locked";
    selectedId = null;
    sessions = [];
  } else {
    reachable = false;
    pollFailures += 1;
  }
}

/** @param {Session[]} found */
function onSessions(found) {
  // Those with a picture first; within each, the server's order.
  sessions = [
    ...found.filter((session) => session.state === "live"),
    ...found.filter((session) => session.state !== "live"),
  ];
  const isListed = (/** @type {string|null} */ id) => sessions.some((session) => session.session_id === id);
  if (!watching) {
    if (isListed(wantedId)) selectedId = wantedId;
    else if (!isListed(selectedId) || selected()?.state !== "live") selectedId = sessions[0]?.session_id ?? null;
  }
  if (autoplay && selectedId !== null && (wantedId === null || selectedId === wantedId)) {
    autoplay = false;
    startWatching();
  }
  // A session that ended and came back under its id (the speaker restarted) goes on by itself.
  if (watching && client?.state === "ended" && selected()?.state === "live") startWatching();
}

/** @param {string} id @param {string} newToken */
function useToken(id, newToken) {
  stopWatching();
  wantedId = id;
  selectedId = null;
  token = newToken;
  access = "unknown";
  try {
    sessionStorage.setItem(TOKEN_KEY, JSON.stringify({ id, token: newToken }));
  } catch {
    // Storage may be forbidden; then a reload asks again.
  }
}

function forgetToken() {
  token = null;
  try {
    sessionStorage.removeItem(TOKEN_KEY);
  } catch {
    // As above.
  }
}

function readFragment() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const id = fragment.get("session");
  const given = fragment.get("token");
  autoplay = fragment.get("play") === "1";
  if (id !== null && given !== null) {
    useToken(id, given);
    // The token must not stay in the address bar, the history or a shared screen.
    setFragment(id);
    return;
  }
  if (id !== null) wantedId = id;
  try {
    const kept = JSON.parse(sessionStorage.getItem(TOKEN_KEY) ?? "null");
    if (kept !== null && (id === null || id === kept.id)) {
      wantedId = kept.id;
      token = kept.token;
    }
  } catch {
    // As above.
  }
}

/** @param {string} id */
function setFragment(id) {
  history.replaceState(null, "", `#${new URLSearchParams({ session: id })}`);
}

// ---------------------------------------------------------------- watching

async function startWatching() {
  const session = selected();
  if (session === null) return;
  closeClient();
  watching = true;
  render();
  const iceServers = await getIceServers(token);
  if (!watching || selectedId !== session.session_id || client !== null) return;
  const started = new WhepClient({ url: session.whep_url, token, iceServers });
  client = started;
  started.addEventListener("stream", (event) => {
    if (client !== started) return;
    video.srcObject = /** @type {CustomEvent<MediaStream>} */ (event).detail;
    reader?.close();
    reader = new StatsReader(/** @type {RTCPeerConnection} */ (started.peer), video);
    video.play().catch(() => {
      // Muted playback is allowed everywhere; a refusal comes from the next stream taking its place.
    });
  });
  started.addEventListener("state", () => {
    if (client === started) render();
  });
  started.start();
}

function stopWatching() {
  watching = false;
  closeClient();
}

function closeClient() {
  const closing = client;
  client = null;
  closing?.stop();
  reader?.close();
  reader = null;
  stats = null;
  video.srcObject = null;
  for (const spark of Object.values(sparks)) spark.clear();
}

/** @param {string} id */
function select(id) {
  wantedId = id;
  setFragment(id);
  if (id === selectedId) {
    if (!watching) startWatching();
    return;
  }
  selectedId = id;
  if (watching) startWatching();
  render();
}

async function readStats() {
  if (document.hidden || reader === null || client?.state !== "connected") return;
  const from = reader;
  const next = await from.read(selected()?.stats ?? null);
  if (from !== reader) return;
  stats = next;
  sparks.fps.push(next.fps);
  sparks.down.push(next.downlinkBps);
  sparks.latency.push(next.latencyMs);
  renderStats();
}

// ---------------------------------------------------------------- showing

/** A line of the last minute's values in a strip of 100 x 20 units. */
class Spark {
  /** @type {(number|null)[]} */
  #values = [];
  #line;

  /** @param {string} id */
  constructor(id) {
    this.#line = /** @type {SVGPolylineElement} */ (document.querySelector(`#${id} polyline`));
  }

  /** @param {number|null} value */
  push(value) {
    this.#values.push(value);
    if (this.#values.length > SPARK_SAMPLES) this.#values.shift();
    const top = Math.max(1, ...this.#values.map((sample) => sample ?? 0)) * 1.15;
    const points = this.#values.flatMap((sample, index) => {
      if (sample === null) return [];
      const x = 100 - ((this.#values.length - 1 - index) * 100) / (SPARK_SAMPLES - 1);
      return [`${x.toFixed(2)},${(19 - (18 * sample) / top).toFixed(2)}`];
    });
    this.#line.setAttribute("points", points.join(" "));
  }

  clear() {
    this.#values = [];
    this.#line.removeAttribute("points");
  }
}

const sparks = { fps: new Spark("spark-fps"), down: new Spark("spark-down"), latency: new Spark("spark-latency") };

/**
 * What the stage says in each state; `action` labels the button beneath, `pill` the header.
 * @type {Record<PageState, {title: string, text?: string, action?: string, pill: string, tone: "calm"|"live"|"busy"|"bad"}>}
 */
const WORDS = {
  loading: { title: "", pill: "Starting", tone: "calm" },
  offline: {
    title: "The server can’t be reached",
    text: "Check that Mien is running. This page keeps trying.",
    pill: "Offline",
    tone: "bad",
  },
  locked: {
    title: "This session is private",
    text: "Enter the session id and the watch token that you were given.",
    pill: "Private",
    tone: "calm",
  },
  empty: {
    title: "No one is speaking yet",
    text: "Start a speaker and the picture appears here.",
    pill: "Listening",
    tone: "calm",
  },
  ready: { title: "", pill: "Ready", tone: "calm" },
  connecting: { title: "Connecting", pill: "Connecting", tone: "busy" },
  playing: { title: "", pill: "Connected", tone: "live" },
  waiting: {
    title: "Waiting for the speaker",
    text: "The picture starts by itself as soon as they do.",
    pill: "Waiting",
    tone: "busy",
  },
  busy: {
    title: "Every seat is taken",
    text: "The server has no room for another viewer right now.",
    action: "Try now",
    pill: "Busy",
    tone: "busy",
  },
  reconnecting: {
    title: "Connection lost",
    text: "Getting you back in.",
    action: "Try now",
    pill: "Reconnecting",
    tone: "bad",
  },
  ended: {
    title: "The session has ended",
    text: "If the speaker comes back, it goes on here.",
    action: "Close",
    pill: "Ended",
    tone: "calm",
  },
  denied: {
    title: "You can’t watch this session",
    text: "The server did not accept the watch token.",
    action: "Close",
    pill: "Denied",
    tone: "bad",
  },
  failed: {
    title: "This browser can’t play the session",
    text: "The server refused its offer.",
    action: "Close",
    pill: "Failed",
    tone: "bad",
  },
};

function render() {
  const state = pageState();
  const words = WORDS[state];
  const session = selected();
  document.body.dataset.state = state;
  document.title = state === "playing" && session ? `${avatarName(session)} · Mien` : "Mien";

  byId("connection").dataset.tone = !reachable && state === "ready" ? "bad" : words.tone;
  setText("connection-text", !reachable && state === "ready" ? "Offline" : words.pill);

  const isReady = state === "ready" && session !== null;
  setText("message-title", isReady ? avatarName(session) : words.title);
  const readyText = session?.state === "waiting" ? "Waiting for the speaker" : "Live";
  setText(
    "message-text",
    isReady ? readyText : state === "failed" && client?.detail ? client.detail : (words.text ?? ""),
  );
  byId("message-text").hidden = byId("message-text").textContent === "";

  show("play", isReady);
  byId("play").setAttribute("aria-label", isReady ? `Play ${avatarName(session)}` : "Play");
  show("spinner", state === "connecting" || state === "loading" || state === "waiting" || state === "reconnecting");
  show("emblem", state === "empty" || state === "offline" || state === "ended");
  show("commands", state === "empty");
  show("access", state === "locked");
  setText("access-error", accessError);
  show("access-error", accessError !== "");
  show("veil", state !== "playing");
  show("controls", watching && state !== "ended" && state !== "denied" && state !== "failed");
  show("synthetic", session !== null && state !== "locked");
  show("resting", state === "playing" && session?.stats?.idle === true);

  const other = sessions.find((candidate) => candidate.state === "live" && candidate.session_id !== selectedId);
  const action = state === "ended" && other ? `Watch ${avatarName(other)}` : words.action;
  setText("action", action ?? "");
  show("action", action !== undefined);

  renderPoster(session);
  renderCountdown();
  renderSessions();
  renderStats();
}

/** @param {Session|null} session */
function renderPoster(session) {
  const url = session === null ? null : avatarPictureUrl(session.avatar_id);
  if (url === (poster.getAttribute("src") ?? null)) return;
  poster.hidden = true;
  if (url === null) poster.removeAttribute("src");
  else poster.src = url;
}

function renderCountdown() {
  const state = pageState();
  const atMs = client?.retryAtMs ?? null;
  const isShown = atMs !== null && (state === "busy" || state === "reconnecting");
  show("message-countdown", isShown);
  if (!isShown) return;
  const leftS = Math.ceil(/** @type {number} */ ((atMs) - performance.now()) / 1000);
  setText("message-countdown", leftS > 0 ? `Next try in ${leftS} s` : "Trying again");
}

/** @type {Map<string, HTMLLIElement>} */
const rows = new Map();

function renderSessions() {
  const list = byId("sessions");
  // Rows are kept and updated: replacing them would take the keyboard's focus away every two seconds.
  for (const [id, row] of rows) {
    if (sessions.some((session) => session.session_id === id)) continue;
    row.remove();
    rows.delete(id);
  }
  sessions.forEach((session, index) => {
    let row = rows.get(session.session_id);
    if (row === undefined) {
      row = createRow(session);
      rows.set(session.session_id, row);
    }
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
    updateRow(row, session);
  });
  setText("session-count", String(sessions.length));
  show("session-count", sessions.length > 0);
  const note = !reachable
    ? "The server does not answer. Trying again."
    : access === "locked"
      ? "Sessions on this server are not listed."
      : sessions.length === 0 && access !== "unknown"
        ? "Speakers appear here as they join."
        : "";
  setText("side-note", note);
  show("side-note", note !== "");
}

/** @param {Session} session */
function createRow(session) {
  const row = document.createElement("li");
  const button = element("button", "session");
  button.setAttribute("type", "button");
  button.dataset.session = session.session_id;
  button.addEventListener("click", () => select(session.session_id));

  const thumb = element("span", "thumb");
  const face = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", "#icon-face");
  face.append(use);
  const picture = document.createElement("img");
  picture.alt = "";
  picture.hidden = true;
  picture.addEventListener("load", () => (picture.hidden = false));
  picture.src = avatarPictureUrl(session.avatar_id);
  thumb.append(face, picture, element("span", "session-state"));

  const text = element("span", "session-text");
  text.append(element("span", "session-name"), element("span", "session-meta"));
  button.append(thumb, text);
  row.append(button);
  return row;
}

/** @param {HTMLLIElement} row @param {Session} session */
function updateRow(row, session) {
  const button = /** @type {HTMLElement} */ (row.firstElementChild);
  const part = (/** @type {string} */ name) => /** @type {HTMLElement} */ (row.querySelector(`.${name}`));
  button.setAttribute("aria-current", String(session.session_id === selectedId));
  setContent(part("session-name"), avatarName(session));
  const viewers = session.stats?.viewers;
  const facts = [
    session.created_at_ms ? since(session.created_at_ms, Date.now()) : null,
    typeof viewers === "number" ? `${viewers} watching` : null,
  ];
  setContent(part("session-meta"), facts.filter(Boolean).join(" · ") || session.session_id.slice(0, 12));
  const isLive = session.state === "live";
  part("session-state").dataset.live = String(isLive);
  setContent(part("session-state"), isLive ? "Live" : "Waiting");
  button.title = `Session ${session.session_id}`;
}

function renderStats() {
  const shown = pageState() === "playing" ? stats : null;
  const server = selected()?.stats ?? null;
  setText("stat-resolution", shown?.width ? `${shown.width} × ${shown.height}` : "–");
  setText("stat-fps", figure(shown?.fps, 1, 1));
  setText("stat-down", figure(shown?.downlinkBps, 0, 1000));
  setText("stat-up", figure(shown ? shown.uplinkBps : null, 1, 1000));
  setText(
    "stat-latency",
    (shown && !shown.latencyComplete && shown.latencyMs !== null ? "≥ " : "") + figure(shown?.latencyMs, 0, 1),
  );
  setText("stat-loss", shown?.lossRatio === 0 ? "0" : figure(shown?.lossRatio, 2, 0.01));
  setText("stat-viewers", shown ? figure(server?.viewers, 0, 1) : "–");
  setText("stat-codec", shown?.codec ?? "–");
  byId("stat-codec").title = shown?.codecProfile ?? "";
  const p99 = shown ? server?.motion_to_packet_ms_p99 : null;
  setText(
    "part-server",
    partMs(shown?.latencyParts.serverMs) + (typeof p99 === "number" ? ` (p99 ${p99.toFixed(0)})` : ""),
  );
  setText("part-network", partMs(shown?.latencyParts.networkMs));
  setText("part-buffer", partMs(shown?.latencyParts.bufferMs));
  setText("part-decode", partMs(shown?.latencyParts.decodeMs));
  byId("stats").dataset.live = String(shown !== null);
}

/** @param {number|null|undefined} value @param {number} digits @param {number} unit */
function figure(value, digits, unit) {
  return typeof value === "number" ? (value / unit).toFixed(digits) : "–";
}

/** @param {number|null|undefined} value */
function partMs(value) {
  return typeof value === "number" ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : "not known";
}

/** A name for people: "aria-blue" becomes "Aria blue", an opaque id "Avatar 3f2a9c". @param {Session} session */
function avatarName({ avatar_id: id }) {
  const opaque = /^[0-9a-f-]{12,}$/i.test(id) || (/\d/.test(id) && id.length > 16);
  if (opaque) return `Avatar ${id.replace(/-/g, "").slice(-6)}`;
  const words = id.replace(/[-_]+/g, " ").trim();
  return words === "" ? "Avatar" : words[0].toUpperCase() + words.slice(1);
}

/** @param {number} thenMs @param {number} nowMs */
function since(thenMs, nowMs) {
  const minutes = Math.floor((nowMs - thenMs) / 60_000);
  if (minutes < 1) return "just now";
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** @param {string} tag @param {string} className */
function element(tag, className) {
  const made = document.createElement(tag);
  made.className = className;
  return made;
}

/** Writes only what changed: a live region would announce the same words again. @param {Element} target @param {string} text */
function setContent(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** @param {string} id @param {string} text */
function setText(id, text) {
  setContent(byId(id), text);
}

/** @param {string} id @param {boolean} isShown */
function show(id, isShown) {
  byId(id).hidden = !isShown;
}

// ---------------------------------------------------------------- events

byId("play").addEventListener("click", () => {
  startWatching();
  byId("stop").focus({ preventScroll: true });
});

byId("stop").addEventListener("click", () => {
  stopWatching();
  render();
  (byId("play").hidden ? byId("stage") : byId("play")).focus({ preventScroll: true });
});

byId("action").addEventListener("click", () => {
  const state = pageState();
  if (state === "busy" || state === "reconnecting") {
    client?.retryNow();
  } else if (state === "ended") {
    const other = sessions.find((session) => session.state === "live" && session.session_id !== selectedId);
    if (other) select(other.session_id);
    else stopWatching();
  } else {
    stopWatching();
  }
  void poll();
  render();
});

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  /** @type {HTMLInputElement} */
  const session = byId("access-session");
  /** @type {HTMLInputElement} */
  const given = byId("access-token");
  useToken(session.value.trim(), given.value.trim());
  given.value = "";
  setFragment(/** @type {string} */ (wantedId));
  autoplay = true;
  void poll();
});

byId("fullscreen").addEventListener("click", toggleFullscreen);

function toggleFullscreen() {
  if (document.fullscreenElement) void document.exitFullscreen();
  else void byId("stage").requestFullscreen?.();
}

byId("pip").hidden = !document.pictureInPictureEnabled;
byId("pip").addEventListener("click", () => {
  if (document.pictureInPictureElement) void document.exitPictureInPicture();
  else video.requestPictureInPicture().catch(() => {});
});

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = byId(/** @type {HTMLElement} */ (button).dataset.copy ?? "");
    try {
      await navigator.clipboard.writeText(source.textContent ?? "");
      const use = button.querySelector("use");
      use?.setAttribute("href", "#icon-check");
      window.setTimeout(() => use?.setAttribute("href", "#icon-copy"), 1500);
    } catch {
      // No clipboard outside a secure context: leave the text selected instead.
      getSelection()?.selectAllChildren(source);
    }
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") byId("latency-tip").dataset.dismissed = "true";
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "f" && watching && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) toggleFullscreen();
});
for (const type of ["pointerenter", "focus"]) {
  byId("latency-info").addEventListener(type, () => delete byId("latency-tip").dataset.dismissed);
}

poster.addEventListener("load", () => (poster.hidden = false));
// The first frame turns "connecting" into "playing".
video.addEventListener("playing", render);
video.addEventListener("loadeddata", render);

document.addEventListener("visibilitychange", () => {
  window.clearTimeout(pollTimer);
  if (document.hidden) return;
  reader?.reset();
  void poll();
});

window.addEventListener("hashchange", () => {
  readFragment();
  void poll();
});

window.addEventListener("pagehide", closeClient);
window.addEventListener("pageshow", (event) => {
  // Back from the back-forward cache with the connection gone.
  if (event.persisted && watching) void startWatching();
});

window.setInterval(() => {
  renderCountdown();
  if (pageState() !== document.body.dataset.state) render();
}, 250);
window.setInterval(() => void readStats(), STATS_MS);

readFragment();
render();
void poll();
