// @ts-check
/**
 * What a close code of the room's events means (docs/conference.md). Pure.
 * @import { DisconnectCode } from "../room/room_event.js"
 * @import { MienError } from "./gateway.js"
 */

/**
 * Codes after which reconnecting is useless.
 * @type {ReadonlyMap<number, {code: DisconnectCode, text: string}>}
 */
const FINAL = new Map([
  [1008, { code: "flood", text: "this client sent too many messages" }],
  [4401, { code: "token", text: "the token has expired" }],
  [4403, { code: "removed", text: "a moderator has removed this participant" }],
  [4409, { code: "replaced", text: "this participant has connected from another place" }],
  [4410, { code: "ended", text: "the room has ended" }],
  [4411, { code: "left", text: "this participant has left the room" }],
]);

/**
 * @param {number} code
 * @returns {{code: DisconnectCode, text: string}|null} null: connect again
 */
export function finalClose(code) {
  return FINAL.get(code) ?? null;
}

/**
 * What a refused call says about the room's events. A browser does not tell why a WebSocket was refused, so the client
 * asks by a GET.
 * @param {MienError} error
 * @returns {{code: DisconnectCode, text: string}|null} null: connect again
 */
export function finalRefusal({ status, code, message }) {
  if (code === "not-admitted") return null; // in the lobby, where the events are open
  switch (status) {
    case 401:
      return { code: "token", text: message };
    case 403:
      return { code: "refused", text: message };
    case 404:
      return code === "participant-not-found" ? { code: "left", text: message } : { code: "ended", text: message };
    default:
      return null;
  }
}
