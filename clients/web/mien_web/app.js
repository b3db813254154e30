// @ts-check
/**
 * The watch page: finds sessions, watches one, and tells view.js what to show.
 *
 * Fragment: `#session=ID` preselects a session, `&token=T` watches it in a closed deployment, `&play=1` starts at once.
 *
 * Automated tests and other scripts can read the page's state in `window.mien`:
 * - `state`: a {@link PageState}
 * - `stats`: the newest {@link PlaybackStats} while `state` is "playing" (the first after one second); otherwise null
 * - `sessionId`: the selected session, or null
 */

import { ApiError, getIceServers, getSession, listSessions } from "./api.js";
import { StatsReader } from "./stats.js";
import { byId, clearSparklines, extendSparklines, showCountdown, showPage, showStats } from "./view.js";
import { WhepClient } from "./whep.js";

/** @typedef {import("./api.js").Session} Session */
/** @typedef {import("./stats.js").PlaybackStats} PlaybackStats */
/** @typedef {import("./view.js").PageState} PageState */

const POLL_MS = 2000;
const POLL_LIMIT_MS = 15_000;
/** After the first frame: by then the server counts this viewer. */
const FIRST_FIGURES_MS = 600;
const STATS_MS = 1000;
const TOKEN_KEY = "mien.watch";

/** @type {HTMLVideoElement} */
const video = byId("stage-video");

/** @type {Session[]} */
let sessions = [];
/** @type {"unknown"|"open"|"locked"|"token"} how the page finds sessions */
let access = "unknown";
/** @type {string|null} */
let token = null;
let accessError = "";
let reachable = true;
/** @type {string|null} */
let selectedId = null;
/** The session that a link or a click named; it is selected as soon as it is listed. @type {string|null} */
let wantedId = null;
/** True from play to stop. */
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

/** A live session other than the selected one; the page offers it when the selected one has ended. */
const otherLive = () => sessions.find(({ state, session_id: id }) => state === "live" && id !== selectedId) ?? null;

/** @returns {import("./view.js").View} */
function view() {
  return {
    state: pageState(),
    session: selected(),
    sessions,
    token,
    otherLive: otherLive(),
    listing: access === "locked" ? "private" : access === "unknown" ? "unknown" : "known",
    reachable,
    accessError,
    refusal: client?.detail ?? "",
    retryAtMs: client?.retryAtMs ?? null,
    watching,
    stats,
  };
}

function render() {
  showPage(view(), select);
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

/** @type {number|undefined} */
let pollTimer;
let pollFailures = 0;
/** Counts polls, so that the answer to an older poll is ignored. */
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
    // A viewer that already watches continues: its token may expire meanwhile, and an ended session may come back.
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
  // Live sessions first; within each group, the server's order.
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
  // A session that ended and came back under its id (for example after Redis restarted empty) is watched again.
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
    // The browser may forbid storage; then a reload asks for the token again.
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
      // Browsers allow muted playback. play() is rejected only when the next stream replaces this one.
    });
  });
  started.addEventListener("state", () => {
    if (client !== started) return;
    if (started.state === "connected") window.setTimeout(() => void poll(), FIRST_FIGURES_MS);
    render();
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
  clearSparklines();
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
  extendSparklines(next);
  showStats(view());
}

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
    const other = otherLive();
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
      // Outside a secure context there is no clipboard: select the text instead.
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

// The first frame changes the state from "connecting" to "playing".
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
  // The page came back from the back-forward cache, and its connection is closed.
  if (event.persisted && watching) void startWatching();
});

window.setInterval(() => {
  showCountdown(view());
  if (pageState() !== document.body.dataset.state) render();
}, 250);
window.setInterval(() => void readStats(), STATS_MS);

readFragment();
render();
void poll();
