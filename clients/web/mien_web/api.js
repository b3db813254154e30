// @ts-check
/** The parts of the gateway's REST API that a viewer needs. */

const REQUEST_TIMEOUT_MS = 8000;

/**
 * What the server measures about a live session. Any field may be missing or null.
 * @typedef {Object} ServerStats
 * @property {number|null} [fps]
 * @property {number|null} [bitrate_bps]
 * @property {number|null} [uplink_bps]
 * @property {number|null} [motion_to_packet_ms_p50] median time from the gateway's receipt of a
 *   motion packet to its encoded frame
 * @property {number|null} [motion_to_packet_ms_p99]
 * @property {string|null} [backend] what makes the faces, such as "onnx" or "warp"
 * @property {string|null} [tier] the backend and the size of its faces, such as "onnx-384"; it may change during a call
 * @property {number|null} [viewers]
 * @property {boolean|null} [idle] whether the uplink has stalled and the avatar shows the default motion
 */

/**
 * @typedef {Object} Session
 * @property {string} session_id
 * @property {string} avatar_id
 * @property {"waiting"|"live"} state
 * @property {string} whep_url
 * @property {number} [created_at_ms] Unix time
 * @property {ServerStats|null} [stats]
 */

/** An HTTP answer that is not 2xx. */
export class ApiError extends Error {
  /** @param {number} status @param {string} path */
  constructor(status, path) {
    super(`${path} answered ${status}`);
    this.name = "ApiError";
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {string|null} token
 * @returns {Promise<any>} the decoded JSON
 * @throws {ApiError} for an answer that is not 2xx
 * @throws {TypeError} when the server cannot be reached
 */
async function getJson(path, token) {
  const response = await fetch(path, {
    headers: { Accept: "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) },
    cache: "no-store",
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
  });
  if (!response.ok) throw new ApiError(response.status, path);
  return response.json();
}

/**
 * The sessions of an open (demo) deployment; a closed one answers 401 or 403.
 * @returns {Promise<Session[]>}
 */
export async function listSessions() {
  const body = await getJson("/v1/sessions", null);
  return Array.isArray(body.sessions) ? body.sessions : [];
}

/**
 * @param {string} sessionId
 * @param {string} token a watch token for this session
 * @returns {Promise<Session>}
 */
export function getSession(sessionId, token) {
  return getJson(`/v1/sessions/${encodeURIComponent(sessionId)}`, token);
}

/**
 * The deployment's STUN and TURN servers. Without them host candidates still work, so a failure returns an empty
 * list.
 * @param {string|null} token
 * @returns {Promise<RTCIceServer[]>}
 */
export async function getIceServers(token) {
  try {
    const body = await getJson("/v1/ice-servers", token);
    return Array.isArray(body.ice_servers) ? body.ice_servers : [];
  } catch {
    return [];
  }
}

/**
 * Blobs of fetched pictures, by token and avatar. They are few and small, so they stay while the page is open.
 * @type {Map<string, Promise<string|null>>}
 */
const pictures = new Map();

/**
 * The URL of an avatar's picture for an `<img>`. A closed deployment requires a token, which an `<img>` cannot send. So
 * there the picture is fetched once, and the URL is that of a blob.
 * @param {string} avatarId
 * @param {string|null} token a watch token of a session that shows the avatar; null in an open deployment
 * @returns {Promise<string|null>} null if the picture cannot be fetched
 */
export function avatarPicture(avatarId, token) {
  const path = `/v1/avatars/${encodeURIComponent(avatarId)}/picture`;
  if (token === null) return Promise.resolve(path);
  const key = `${token} ${avatarId}`;
  const known = pictures.get(key);
  if (known !== undefined) return known;
  const fetched = fetchPicture(path, token);
  pictures.set(key, fetched);
  void fetched.then((url) => url === null && pictures.delete(key)); // the next call tries again
  return fetched;
}

/**
 * @param {string} path
 * @param {string} token
 * @returns {Promise<string|null>}
 */
async function fetchPicture(path, token) {
  try {
    const headers = { Authorization: `Bearer ${token}` };
    const response = await fetch(path, { headers, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
    return response.ok ? URL.createObjectURL(await response.blob()) : null;
  } catch {
    return null;
  }
}
