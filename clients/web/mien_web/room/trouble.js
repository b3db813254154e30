// @ts-check
/** What went wrong, in the names of the message files. Pure. */

/**
 * @typedef {"camera"|"microphone"} Source
 * @typedef {{title: string, text: string, detail: string}} Trouble keys of messages, and the service's own sentence
 */

const DEVICE_CODES = new Set(["denied", "system-denied", "not-found", "in-use", "insecure", "failed"]);

/** How the problems of the gateway are named on the page that replaces the room. */
const BY_PROBLEM = new Map([
  ["api-key-missing", "no-token"],
  ["api-key-invalid", "no-token"],
  ["token-missing", "no-token"],
  ["token-invalid", "token"],
  ["room-not-found", "not-found"],
  ["participant-not-found", "left"],
  ["room-full", "full"],
  ["room-locked", "locked"],
  ["full", "busy"],
  ["no-generator", "busy"],
  ["redis-unavailable", "unreachable"],
]);
/** Reasons by which joining again can succeed, with the button's word. */
const AGAIN = new Map([
  ["left", "over.again"],
  ["away", "over.again"],
  ["replaced", "over.here"],
  ["full", "over.retry"],
  ["locked", "over.retry"],
  ["busy", "over.retry"],
  ["unreachable", "over.retry"],
  ["flood", "over.again"],
  ["refused", "over.retry"],
]);
const KNOWN = new Set([...AGAIN.keys(), ...BY_PROBLEM.values(), "removed", "ended", "bad-name", "unsupported"]);

/**
 * Words for a camera or microphone that cannot be used.
 * @param {{code?: string, source?: string, message?: string}} error a MediaDevicesError
 * @param {Source} [source] if the error does not say
 * @returns {Trouble}
 */
export function deviceTrouble(error, source = "camera") {
  const device = error.source === "camera" || error.source === "microphone" ? error.source : source;
  const code = DEVICE_CODES.has(error.code ?? "") ? error.code : "failed";
  return { title: `trouble.${device}.${code}`, text: `trouble.${device}.${code}.do`, detail: error.message ?? "" };
}

/**
 * The name of what keeps somebody from a room, from an error of a call or of the SDK.
 * @param {unknown} error
 * @returns {{reason: string, detail: string}}
 */
export function refusal(error) {
  if (error instanceof TypeError || (error instanceof Error && error.name === "TimeoutError")) {
    return { reason: "unreachable", detail: "" };
  }
  const { code = "", message = "" } = /** @type {{code?: string, message?: string}} */ (error ?? {});
  const reason = BY_PROBLEM.get(code) ?? (KNOWN.has(code) ? code : "refused");
  return { reason, detail: message };
}

/**
 * What the page says when the room is over for this person.
 * @param {string} reason
 * @param {string} [detail]
 * @returns {Trouble & {again: string|null}} again: the word of the button that tries again, null for none
 */
export function overTrouble(reason, detail = "") {
  const name = KNOWN.has(reason) ? reason : "refused";
  return { title: `over.${name}`, text: `over.${name}.do`, detail, again: AGAIN.get(name) ?? null };
}

/**
 * The message for a picture that was refused.
 * @param {unknown} error
 * @param {(key: string) => boolean} has whether there is such a message
 * @returns {{key: string, detail: string}}
 */
export function uploadTrouble(error, has) {
  if (error instanceof TypeError) return { key: "upload.offline", detail: "" };
  const { code = "", message = "" } = /** @type {{code?: string, message?: string}} */ (error ?? {});
  return { key: has(`upload.${code}`) ? `upload.${code}` : "upload.failed", detail: message };
}
