// @ts-check
/** The dialog that lists the keys of the meeting, and whether they work. */

import { byId, make } from "./dom.js";
import { SHORTCUTS } from "./menus.js";
import { t } from "./words.js";

const OFF = "mien-no-shortcuts";

/** What a key does, in a word of the message files. */
const WORDS = {
  microphone: "microphone",
  camera: "device.camera",
  hand: "hand.raise",
  reactions: "reactions",
  chat: "chat",
  people: "people",
  layout: "layout.speaker",
  fullscreen: "fullscreen",
  shortcuts: "shortcuts",
};

export function showShortcuts() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("shortcuts"));
  byId("shortcut-list").replaceChildren(
    ...Object.entries(SHORTCUTS).flatMap(([key, what]) => [
      make("dt", {}, make("kbd", {}, key.toUpperCase())),
      make("dd", {}, t(WORDS[what])),
    ]),
  );
  const box = /** @type {HTMLInputElement} */ (byId("shortcuts-on"));
  box.checked = areShortcutsOn();
  box.onchange = () => setShortcuts(box.checked);
  byId("shortcuts-close").onclick = () => dialog.close();
  dialog.showModal();
}

export function areShortcutsOn() {
  try {
    return localStorage.getItem(OFF) === null;
  } catch {
    return true;
  }
}

/** @param {boolean} isOn */
function setShortcuts(isOn) {
  try {
    if (isOn) localStorage.removeItem(OFF);
    else localStorage.setItem(OFF, "1");
  } catch {
    // the browser may forbid storage
  }
}
