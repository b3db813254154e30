// @ts-check
/** The page's elements: one function per part. Each function updates the document from a {@link View}. */

import { avatarPicture } from "./api.js";

/** @typedef {import("./api.js").Session} Session */
/** @typedef {import("./stats.js").PlaybackStats} PlaybackStats */

/**
 * - `loading`: the page waits for the server's first answer
 * - `offline`: the server cannot be reached, and no session is known
 * - `locked`: a closed deployment; the page asks for a session id and a watch token
 * - `empty`: no sessions
 * - `ready`: a session is selected; the play button starts it
 * - `connecting`: play was pressed, and no frame has arrived yet
 * - `playing`: the page presents frames
 * - `waiting`, `busy`, `reconnecting`, `ended`, `removed`, `denied`, `failed`: as in whep.js
 * @typedef {"loading"|"offline"|"locked"|"empty"|"ready"|"connecting"|"playing"|"waiting"|"busy"|"reconnecting"|"ended"
 *   |"removed"|"denied"|"failed"} PageState
 */

/**
 * Everything that the page shows.
 * @typedef {Object} View
 * @property {PageState} state
 * @property {Session|null} session the selected session, while it is listed
 * @property {Session[]} sessions
 * @property {string|null} token the watch token of the selected session in a closed deployment
 * @property {Session|null} otherLive
 * @property {"unknown"|"known"|"private"} listing whether the server lists its sessions
 * @property {boolean} reachable whether the server's API answers
 * @property {string} accessError why the form's last token was refused; empty if none was
 * @property {string} refusal what the server said about a refused offer; may be empty
 * @property {number|null} retryAtMs when the next try starts, on the clock of `performance.now()`
 * @property {boolean} watching
 * @property {PlaybackStats|null} stats
 */

const SPARK_SAMPLES = 60;

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id of an element of index.html
 * @returns {T}
 */
export const byId = (id) => /** @type {T} */ (document.getElementById(id));

/** @type {HTMLImageElement} */
const poster = /** @type {HTMLImageElement} */ (byId("stage-poster"));
poster.addEventListener("load", () => (poster.hidden = false));

/** A line chart of the last minute's values, 100 x 20 units. */
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

/** @param {PlaybackStats} stats */
export function extendSparklines(stats) {
  sparks.fps.push(stats.fps);
  sparks.down.push(stats.downlinkBps);
  sparks.latency.push(stats.latencyMs);
}

export function clearSparklines() {
  for (const spark of Object.values(sparks)) spark.clear();
}

/**
 * @typedef {Object} Words
 * @property {string} title
 * @property {string} [text]
 * @property {string} [action] the button below the text
 * @property {string} pill the text in the header
 * @property {"calm"|"live"|"busy"|"bad"} tone
 */

/** The page's texts in each state. @type {Record<PageState, Words>} */
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
    title: "There is no session yet",
    text: "Start a speaker, and the picture appears here.",
    pill: "No session",
    tone: "calm",
  },
  ready: { title: "", pill: "Ready", tone: "calm" },
  connecting: { title: "Connecting", pill: "Connecting", tone: "busy" },
  playing: { title: "", pill: "Connected", tone: "live" },
  waiting: {
    title: "Waiting for video",
    text: "The session has no video at the moment. The picture starts by itself.",
    pill: "Waiting",
    tone: "busy",
  },
  busy: {
    title: "The server is full",
    text: "The server has no room for another viewer right now.",
    action: "Try now",
    pill: "Busy",
    tone: "busy",
  },
  reconnecting: {
    title: "Connection lost",
    text: "The page is reconnecting.",
    action: "Try now",
    pill: "Reconnecting",
    tone: "bad",
  },
  ended: {
    title: "The session has ended",
    text: "If it starts again, this page plays it.",
    action: "Close",
    pill: "Ended",
    tone: "calm",
  },
  removed: {
    title: "You were removed from this session",
    text: "An operator ended your connection.",
    action: "Close",
    pill: "Removed",
    tone: "bad",
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
    text: "The server rejected this browser’s connection request.",
    action: "Close",
    pill: "Failed",
    tone: "bad",
  },
};

/**
 * Updates the whole page.
 * @param {View} view
 * @param {(sessionId: string) => void} onSelect called when a session in the list is chosen
 */
export function showPage(view, onSelect) {
  const { state, session, reachable } = view;
  const words = WORDS[state];
  document.body.dataset.state = state;
  document.title = state === "playing" && session ? `${avatarName(session)} · Mien` : "Mien";

  byId("connection").dataset.tone = !reachable && state === "ready" ? "bad" : words.tone;
  setText("connection-text", !reachable && state === "ready" ? "Offline" : words.pill);

  const isReady = state === "ready" && session !== null;
  setText("message-title", isReady ? avatarName(session) : words.title);
  const readyText = session?.state === "waiting" ? "Waiting for video" : "Live";
  setText("message-text", isReady ? readyText : state === "failed" && view.refusal ? view.refusal : (words.text ?? ""));
  byId("message-text").hidden = byId("message-text").textContent === "";

  show("play", isReady);
  byId("play").setAttribute("aria-label", isReady ? `Play ${avatarName(session)}` : "Play");
  show("spinner", state === "connecting" || state === "loading" || state === "waiting" || state === "reconnecting");
  show("emblem", state === "empty" || state === "offline" || state === "ended");
  show("commands", state === "empty");
  show("access", state === "locked");
  setText("access-error", view.accessError);
  show("access-error", view.accessError !== "");
  show("veil", state !== "playing");
  show("controls", view.watching && !["ended", "removed", "denied", "failed"].includes(state));
  show("synthetic", session !== null && state !== "locked");
  show("resting", state === "playing" && session?.stats?.idle === true);

  const action = state === "ended" && view.otherLive ? `Watch ${avatarName(view.otherLive)}` : words.action;
  setText("action", action ?? "");
  show("action", action !== undefined);

  showPoster(view);
  showCountdown(view);
  showSessions(view, onSelect);
  showStats(view);
}

/** @param {View} view */
function showPoster({ session, token }) {
  const avatarId = session?.avatar_id ?? "";
  if (avatarId === (poster.dataset.avatar ?? "")) return;
  poster.dataset.avatar = avatarId;
  poster.hidden = true;
  poster.removeAttribute("src");
  if (session !== null) void showAvatar(poster, avatarId, token);
}

/**
 * @param {HTMLImageElement} picture
 * @param {string} avatarId
 * @param {string|null} token
 */
async function showAvatar(picture, avatarId, token) {
  picture.dataset.avatar = avatarId;
  const url = await avatarPicture(avatarId, token);
  // The user may have selected another avatar meanwhile.
  if (url !== null && picture.dataset.avatar === avatarId) picture.src = url;
}

/** Shows when the next try starts; call it a few times a second. @param {View} view */
export function showCountdown({ state, retryAtMs: atMs }) {
  const isShown = atMs !== null && (state === "busy" || state === "reconnecting");
  show("message-countdown", isShown);
  if (!isShown) return;
  const leftS = Math.ceil(/** @type {number} */ (atMs - performance.now()) / 1000);
  setText("message-countdown", leftS > 0 ? `Next try in ${leftS} s` : "Trying again");
}

/** @type {Map<string, HTMLLIElement>} */
const rows = new Map();

/** @param {View} view @param {(sessionId: string) => void} onSelect */
function showSessions({ sessions, session: selected, token, listing, reachable }, onSelect) {
  const list = byId("sessions");
  // Rows are kept and updated: a replaced row would lose the keyboard focus every two seconds.
  for (const [id, row] of rows) {
    if (sessions.some((session) => session.session_id === id)) continue;
    row.remove();
    rows.delete(id);
  }
  sessions.forEach((session, index) => {
    let row = rows.get(session.session_id);
    if (row === undefined) {
      row = createRow(session, token, onSelect);
      rows.set(session.session_id, row);
    }
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
    updateRow(row, session, session.session_id === selected?.session_id);
  });
  setText("session-count", String(sessions.length));
  show("session-count", sessions.length > 0);
  const note = !reachable
    ? "The server does not answer. The page tries again."
    : listing === "private"
      ? "Sessions on this server are not listed."
      : sessions.length === 0 && listing === "known"
        ? "New sessions appear here."
        : "";
  setText("side-note", note);
  show("side-note", note !== "");
}

/** @param {Session} session @param {string|null} token @param {(sessionId: string) => void} onSelect */
function createRow(session, token, onSelect) {
  const row = document.createElement("li");
  const button = element("button", "session");
  button.setAttribute("type", "button");
  button.dataset.session = session.session_id;
  button.addEventListener("click", () => onSelect(session.session_id));

  const thumb = element("span", "thumb");
  const face = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", "#icon-face");
  face.append(use);
  const picture = document.createElement("img");
  picture.alt = "";
  picture.hidden = true;
  picture.addEventListener("load", () => (picture.hidden = false));
  void showAvatar(picture, session.avatar_id, token);
  thumb.append(face, picture, element("span", "session-state"));

  const text = element("span", "session-text");
  text.append(element("span", "session-name"), element("span", "session-meta"));
  button.append(thumb, text);
  row.append(button);
  return row;
}

/** @param {HTMLLIElement} row @param {Session} session @param {boolean} isSelected */
function updateRow(row, session, isSelected) {
  const button = /** @type {HTMLElement} */ (row.firstElementChild);
  const part = (/** @type {string} */ name) => /** @type {HTMLElement} */ (row.querySelector(`.${name}`));
  button.setAttribute("aria-current", String(isSelected));
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

/** Updates the figures below the stage. @param {View} view */
export function showStats({ state, stats, session }) {
  const shown = state === "playing" ? stats : null;
  const server = session?.stats ?? null;
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
  setText("stat-tier", (shown && server?.tier) || "–");
  byId("stat-tier").title = shown && server?.backend ? `Made by the ${server.backend} backend` : "";
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
  return typeof value === "number" ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : "unknown";
}

/** A readable name: "aria-blue" becomes "Aria blue", an opaque id becomes "Avatar 3f2a9c". @param {Session} session */
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

/**
 * Writes the text only if it changed: otherwise a live region would announce the same words again.
 * @param {Element} target
 * @param {string} text
 */
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
