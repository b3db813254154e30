// @ts-check
/**
 * The dialog with devices and avatar.
 * @import { Room } from "../client/index.js"
 */

import { deviceMenus } from "./devices.js";
import { byId } from "./dom.js";
import { Gallery } from "./gallery.js";

/**
 * @param {Room} room
 * @param {string} token
 * @param {(avatarId: string) => void} onAvatar another avatar is in use
 * @returns {() => void} ends what the menus listen to
 */
export function showSettings(room, token, onAvatar) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("settings"));
  const stop = deviceMenus(byId("settings-devices"), (kind, id) => room.switchActiveDevice(kind, id).catch(() => {}));
  const local = room.localParticipant;
  const mayPublish = local?.grants.includes("publish") ?? false;
  byId("settings-gallery").hidden = !mayPublish;
  if (mayPublish) {
    const choose = async (/** @type {string} */ id) => {
      await local?.setAvatar(id);
      onAvatar(id);
    };
    void new Gallery(byId("settings-gallery"), { token, chosen: local?.avatarId ?? null, choose }).load();
  }
  byId("settings-close").onclick = () => dialog.close();
  dialog.showModal();
  return stop;
}
