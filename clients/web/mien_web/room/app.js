// @ts-check
/**
 * The page of a room: loading, then the join screen, the lobby, the meeting, and the end.
 * @import { Entry } from "./entry.js"
 * @import { Preview } from "../client/index.js"
 */

import { Room } from "../client/index.js";
import { byId } from "./dom.js";
import { byName, enter } from "./entry.js";
import { tellState } from "./figures.js";
import { leaveRoom } from "./gateway.js";
import { JoinScreen, kept } from "./join.js";
import { Meeting } from "./meeting.js";
import { overTrouble, refusal } from "./trouble.js";
import { applyWords, loadWords, switchLanguage, t } from "./words.js";

const VIEWS = ["loading", "join", "waiting", "meeting", "over"];
/** Which room this tab was in: a reload goes back into it without the join screen. */
const INSIDE = "mien-inside";

/** @type {Entry|null} */
let entry = null;
/** @type {JoinScreen|null} */
let joinScreen = null;
/** @type {Meeting|null} */
let meeting = null;
/** @type {Room|null} */
let room = null;

/** @param {string} view */
function show(view) {
  for (const name of VIEWS) byId(name).hidden = name !== view;
  document.body.dataset.view = view;
  if (view !== "meeting") tellState(view);
}

/** @param {string} reason @param {string} [detail] */
function over(reason, detail = "") {
  inside(null);
  leaveJoin();
  meeting?.close();
  meeting = null;
  const words = overTrouble(reason, detail);
  byId("over-title").textContent = t(words.title);
  byId("over-text").textContent = t(words.text, { detail });
  const again = /** @type {HTMLButtonElement} */ (byId("over-again"));
  again.hidden = words.again === null;
  again.textContent = words.again === null ? "" : t(words.again);
  again.onclick = () => void start();
  document.body.dataset.reason = reason;
  show("over");
  byId("over-title").focus();
}

async function start() {
  show("loading");
  try {
    entry = await enter(location);
  } catch (error) {
    const { reason, detail } = refusal(error);
    return over(reason, detail);
  }
  const wasInside = inside() === location.pathname && !entry.isWaiting;
  if (wasInside && (!entry.isDemo || entry.name !== "")) return connect(null);
  show("join");
  joinScreen = new JoinScreen(entry, join);
  void joinScreen.start();
}

/**
 * @param {string} name
 * @param {string|null} avatarId
 * @param {Preview|null} preview
 */
async function join(name, avatarId, preview) {
  if (entry === null) return;
  try {
    if (entry.isDemo) {
      // The name may be new, and who waited for long on this screen is no participant any more.
      const before = entry.participantId;
      entry = await byName(entry.roomName ?? entry.roomId, name, avatarId);
      if (entry.participantId !== before) {
        preview?.close();
        preview = null;
      }
    }
  } catch (error) {
    const { reason, detail } = refusal(error);
    return over(reason, detail);
  }
  await connect(preview);
}

/** @param {Preview|null} preview */
async function connect(preview) {
  if (entry === null) return;
  const { token } = entry;
  const opened = new Room();
  room = opened;
  opened.on("waiting", () => (leaveJoin(), show("waiting")));
  const usable = preview?.localParticipant == null ? undefined : preview;
  opened.on("connected", () => void begin(opened, usable === undefined));
  opened.on("disconnected", (code, text) => {
    if (room !== opened || code === "closed") return;
    room = null;
    over(code === "left" && document.body.dataset.leaving !== "true" ? "away" : code, text);
  });
  delete document.body.dataset.leaving;
  try {
    await opened.connect(location.origin, token, { publish: entry.mayPublish, preview: usable });
  } catch {
    // the event disconnected says why
  }
}

/**
 * @param {Room} opened
 * @param {boolean} isNew nothing was taken over from the join screen: camera and microphone become as they were before
 */
async function begin(opened, isNew) {
  if (entry === null) return;
  leaveJoin();
  inside(location.pathname);
  show("meeting");
  tellState("connected");
  meeting?.close();
  meeting = new Meeting(opened, entry, leave);
  byId("main").focus({ preventScroll: true });
  const local = opened.localParticipant;
  if (!isNew || local === null || local.sessionId === null) return;
  const { camera, microphone } = kept.read();
  await Promise.allSettled([
    microphone ? local.setMicrophoneEnabled(true) : null,
    camera ? local.setCameraEnabled(true) : null,
  ]);
  meeting?.render();
}

function leave() {
  document.body.dataset.leaving = "true";
  inside(null);
  void room?.disconnect();
}

function leaveJoin() {
  joinScreen?.close();
  joinScreen = null;
}

/**
 * @param {string|null} [path] what to remember; nothing: only read
 * @returns {string|null}
 */
function inside(path) {
  try {
    if (path === null) sessionStorage.removeItem(INSIDE);
    else if (path !== undefined) sessionStorage.setItem(INSIDE, path);
    return sessionStorage.getItem(INSIDE);
  } catch {
    return null; // the browser may forbid storage
  }
}

function dressLanguage() {
  byId("language").textContent = t("language");
  byId("language").setAttribute("aria-label", t("language.label"));
  byId("language").lang = t("language") === "English" ? "en" : "zh-CN";
}

byId("language").onclick = async () => {
  await switchLanguage();
  applyWords();
  dressLanguage();
  joinScreen?.render();
};
byId("waiting-leave").onclick = leave;
// Who closes the join screen of a demo must not hold an avatar's place until the room notices.
window.addEventListener("pagehide", () => {
  if (entry !== null && entry.isDemo && joinScreen !== null) leaveRoom(entry.roomId, entry.participantId, entry.token);
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload(); // the page came back, its connections did not
});

await loadWords();
applyWords();
dressLanguage();
if (typeof RTCPeerConnection === "undefined" || typeof WebAssembly === "undefined") over("unsupported");
else await start();
