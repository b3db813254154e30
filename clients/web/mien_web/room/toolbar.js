// @ts-check
/**
 * How the buttons of the toolbar look and what they are called.
 * @import { Room } from "../client/index.js"
 */

import { byId, dress, make } from "./dom.js";
import { t } from "./words.js";

/**
 * @param {Room} room
 * @param {{panel: "chat"|"people"|null, unread: number}} state panel: the one that is open
 */
export function dressToolbar(room, { panel, unread }) {
  const local = room.localParticipant;
  const [microphone, camera, hand] = [local?.isMicrophoneEnabled, local?.isCameraEnabled, local?.hand].map(Boolean);
  device("microphone", microphone, microphone ? "mic" : "mic-off", "m");
  device("camera", camera, camera ? "cam" : "cam-off", "v");
  const isListener = local === null || local.avatarId === null || !local.grants.includes("publish");
  for (const name of ["microphone", "camera"]) /** @type {HTMLButtonElement} */ (byId(name)).disabled = isListener;
  const raised = { pressed: hand, className: hand ? "on" : "", shortcut: "h" };
  dress(byId("hand"), "hand", t(hand ? "hand.lower" : "hand.raise"), raised);
  dress(byId("reactions"), "smile", t("reactions"), { shortcut: "r" });
  dress(byId("more"), "more", t("more"));
  dress(byId("leave"), "leave", t("leave"));
  for (const button of byId("reaction-menu").querySelectorAll("button")) {
    const label = t(`reaction.${button.dataset.reaction}`);
    button.setAttribute("aria-label", label);
    button.title = label;
  }

  const chat = unread > 0 ? t("chat.unread", { count: unread }) : t("chat");
  dress(byId("chat-button"), "chat", chat, { className: panel === "chat" ? "on" : "", shortcut: "c" });
  badge(byId("chat-button"), unread);
  const count = room.remoteParticipants.size + 1;
  const waiting = room.waitingParticipants.size;
  const people = waiting > 0 ? t("people.waiting", { count, waiting }) : t("people.count", { count });
  dress(byId("people-button"), "people", people, { className: panel === "people" ? "on" : "", shortcut: "p" });
  badge(byId("people-button"), waiting);
}

/**
 * @param {"microphone"|"camera"} name
 * @param {boolean} isOn
 * @param {string} picture
 * @param {string} shortcut
 */
function device(name, isOn, picture, shortcut) {
  const label = t(`${name}.${isOn ? "off" : "on"}`);
  dress(byId(name), picture, label, { pressed: isOn, className: isOn ? "" : "off", shortcut });
}

/**
 * A number at the corner of a button; its words are in the button's label.
 * @param {HTMLElement} button
 * @param {number} count 0: none
 */
function badge(button, count) {
  button.querySelector(".badge")?.remove();
  if (count > 0) button.append(make("span", { class: "badge", "aria-hidden": "true" }, count > 99 ? "99+" : String(count)));
}
