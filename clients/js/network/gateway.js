// @ts-check
/**
 * The gateway's REST API as one participant may use it.
 * @import { ParticipantInfo } from "../room/room_state.js"
 */

import { parseRetryAfterMs } from "./backoff.js";
import { iceServersOf } from "./sdp.js";

const REQUEST_TIMEOUT_MS = 10_000;

/**
 * A service refused a call. `status`: the HTTP status; `code` and `detail`: the problem's name and sentence, "" if it
 * has none.
 */
export class MienError extends Error {
  name = "MienError";

  /**
   * @param {number} status
   * @param {string} code
   * @param {string} detail
   * @param {number|null} retryAfterMs when to try again, if the service said so
   */
  constructor(status, code, detail, retryAfterMs = null) {
    super(detail || `the service answered ${status}`);
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.retryAfterMs = retryAfterMs;
  }

  /**
   * The error of an answer that is not 2xx (RFC 9457).
   * @param {Response} response
   * @returns {Promise<MienError>}
   */
  static async of(response) {
    const isJson = response.headers.get("Content-Type")?.includes("json");
    const problem = isJson ? await response.json().catch(() => ({})) : {};
    const retryAfterMs = parseRetryAfterMs(response.headers.get("Retry-After"), Date.now());
    return new MienError(response.status, codeOf(problem), String(problem.detail ?? problem.title ?? ""), retryAfterMs);
  }
}

/** @param {{code?: unknown, type?: unknown}} problem */
function codeOf({ code, type }) {
  if (typeof code === "string") return code;
  return typeof type === "string" ? (type.split(/[:/#]/).at(-1) ?? "") : "";
}

/**
 * What a participant's token says. The service checks the token; here it only names room and participant.
 * @param {string} token a JWT
 * @returns {{roomId: string, participantId: string}}
 * @throws {TypeError} it is no participant's token
 */
export function readToken(token) {
  let claims;
  try {
    const payload = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    claims = JSON.parse(atob(payload));
  } catch {
    throw new TypeError("the token cannot be read: it is not a JSON Web Token");
  }
  if (typeof claims?.sub !== "string" || typeof claims.room !== "string") {
    throw new TypeError("the token is not a participant's: it names no room");
  }
  return { roomId: claims.room, participantId: claims.sub };
}

/** The calls of one participant of one room. Each throws a MienError for a refusal, a TypeError without network. */
export class Gateway {
  #token;

  /**
   * @param {string} url the gateway's address, absolute or relative to the page
   * @param {string} token the participant's
   * @throws {TypeError} the address or the token cannot be read
   */
  constructor(url, token) {
    this.url = new URL(url, globalThis.location?.href);
    this.#token = token;
    const { roomId, participantId } = readToken(token);
    this.roomId = roomId;
    this.participantId = participantId;
  }

  get token() {
    return this.#token;
  }

  /** @returns {Record<string, string>} */
  get authorization() {
    return { Authorization: `Bearer ${this.#token}` };
  }

  /**
   * The address of the room's events.
   * @param {number|null} since the newest sequence number that is known
   */
  eventsUrl(since) {
    const query = since === null ? "" : `?since=${since}`;
    return this.#socketUrl(`v1/rooms/${this.roomId}/events${query}`);
  }

  /** @param {string} sessionId */
  uplinkUrl(sessionId) {
    return this.#socketUrl(`v1/sessions/${sessionId}/uplink`);
  }

  /** @param {boolean} locked */
  lock(locked) {
    return this.#call("PATCH", this.#room, { locked });
  }

  endRoom() {
    return this.#call("DELETE", this.#room);
  }

  /** Whether the room's events may be asked for again; throws what refuses them. */
  readRoom() {
    return this.#call("GET", this.#room);
  }

  /**
   * @param {string} participantId
   * @returns {Promise<ParticipantInfo>}
   */
  readParticipant(participantId) {
    return this.#call("GET", this.#participant(participantId));
  }

  /**
   * @param {string} participantId
   * @param {{muted?: boolean, hand?: boolean, avatar_id?: string|null, admitted?: boolean}} changes
   */
  changeParticipant(participantId, changes) {
    return this.#call("PATCH", this.#participant(participantId), changes);
  }

  /**
   * @param {string} participantId
   * @param {{keepalive?: boolean}} [options] keepalive: the call outlives the page
   */
  removeParticipant(participantId, options) {
    return this.#call("DELETE", this.#participant(participantId), undefined, options);
  }

  /**
   * An avatar's own keypoints, to which its motion is relative.
   * @param {string} avatarId
   * @returns {Promise<Float32Array>} 60 values: ten rows of x, y, j00, j01, j10, j11
   */
  async avatarKeypoints(avatarId) {
    const avatar = await this.#call("GET", `v1/avatars/${encodeURIComponent(avatarId)}`);
    return Float32Array.from(avatar.keypoints.flat());
  }

  /** STUN and TURN servers for this participant. @returns {Promise<RTCIceServer[]>} */
  async iceServers() {
    return iceServersOf((await this.#call("GET", "v1/ice-servers")).ice_servers);
  }

  get #room() {
    return `v1/rooms/${this.roomId}`;
  }

  /** @param {string} participantId */
  #participant(participantId) {
    return `${this.#room}/participants/${participantId}`;
  }

  /** @param {string} path */
  #absolute(path) {
    const base = this.url.href.split(/[?#]/)[0];
    return new URL(path, base.endsWith("/") ? base : `${base}/`);
  }

  /** @param {string} path */
  #socketUrl(path) {
    return this.#absolute(path).href.replace(/^http/, "ws");
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   * @param {{keepalive?: boolean}} [options]
   * @returns {Promise<any>} the answer's JSON, null if it has none
   */
  async #call(method, path, body, options = {}) {
    const response = await fetch(this.#absolute(path), {
      method,
      headers: { ...this.authorization, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      ...options,
    });
    if (!response.ok) throw await MienError.of(response);
    return response.status === 204 ? null : response.json();
  }
}
