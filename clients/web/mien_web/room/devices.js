// @ts-check
/** Menus of cameras, microphones and loudspeakers. */

import { Room } from "../client/index.js";
import { make } from "./dom.js";
import { t } from "./words.js";

/** @typedef {"videoinput"|"audioinput"|"audiooutput"} Kind */

/** @type {[Kind, string][]} */
const KINDS = [
  ["videoinput", "device.camera"],
  ["audioinput", "device.microphone"],
  ["audiooutput", "device.speaker"],
];

/** What was chosen on this page, for the next menu and for the room. @type {Map<Kind, string>} */
const chosen = new Map();

/** @param {Kind} kind */
export const chosenDevice = (kind) => chosen.get(kind);

/** Whether a page may choose the loudspeaker here. */
const choosesSpeaker = () => "setSinkId" in HTMLMediaElement.prototype;

/**
 * Fill a box with a menu for each kind of device; again whenever a device comes or goes, until `stop` is called.
 * @param {HTMLElement} box
 * @param {(kind: Kind, deviceId: string) => Promise<void>|void} use
 * @returns {() => void} stop
 */
export function deviceMenus(box, use) {
  const refresh = () => void fill(box, use);
  refresh();
  navigator.mediaDevices?.addEventListener("devicechange", refresh);
  box.addEventListener("refresh", refresh);
  return () => {
    navigator.mediaDevices?.removeEventListener("devicechange", refresh);
    box.removeEventListener("refresh", refresh);
  };
}

/**
 * @param {HTMLElement} box
 * @param {(kind: Kind, deviceId: string) => Promise<void>|void} use
 */
async function fill(box, use) {
  const menus = await Promise.all(
    KINDS.filter(([kind]) => kind !== "audiooutput" || choosesSpeaker()).map(async ([kind, name]) => {
      const devices = await Room.getLocalDevices(kind).catch(() => []);
      const options = devices.map(({ deviceId, label }, number) => {
        const text = label || t("device.numbered", { kind: t(name), number: number + 1 });
        return make("option", { value: deviceId, selected: deviceId === chosen.get(kind) }, text);
      });
      if (options.length === 0) options.push(make("option", { value: "" }, t("device.default")));
      const select = make("select", { disabled: devices.length === 0, "data-kind": kind }, ...options);
      select.onchange = () => {
        chosen.set(kind, select.value);
        void use(kind, select.value);
      };
      return make("label", { class: "field" }, make("span", {}, t(name)), select);
    }),
  );
  if (box.contains(document.activeElement)) return; // never under somebody's hands
  box.replaceChildren(...menus);
}
