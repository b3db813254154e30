// @ts-check
/** The calls of the gateway that the page makes itself; the SDK makes those of a room that is open. */

const TIMEOUT_MS = 10_000;
const UPLOAD_TIMEOUT_MS = 60_000;

/** A refusal. code: the problem's name, as "room-full". */
export class ApiError extends Error {
  /** @param {number} status @param {string} code @param {string} detail */
  constructor(status, code, detail) {
    super(detail);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {{token?: string|null, json?: object, form?: FormData, timeoutMs?: number, keepalive?: boolean}} [options]
 * @returns {Promise<Response>}
 * @throws {ApiError|TypeError}
 */
async function call(method, path, { token = null, json, form, timeoutMs = TIMEOUT_MS, keepalive = false } = {}) {
  const response = await fetch(path, {
    method,
    headers: {
      Accept: "application/json",
      ...(token === null ? {} : { Authorization: `Bearer ${token}` }),
      ...(json === undefined ? {} : { "Content-Type": "application/json" }),
    },
    body: form ?? (json === undefined ? undefined : JSON.stringify(json)),
    cache: "no-store",
    keepalive,
    signal: AbortSignal.timeout(timeoutMs),
  });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new ApiError(response.status, String(problem.type ?? "").split(":").at(-1) ?? "", problem.detail ?? "");
}

const room = (/** @type {string} */ id) => `/v1/rooms/${encodeURIComponent(id)}`;

/** @param {string} roomId @param {string|null} token */
export const readRoom = async (roomId, token) => (await call("GET", room(roomId), { token })).json();

/**
 * A room by its id, in an open demo.
 * @param {string} roomId
 */
export async function findRoom(roomId) {
  try {
    return await readRoom(roomId, null);
  } catch (error) {
    if (error instanceof ApiError && error.code === "room-not-found") return null;
    throw error;
  }
}

/** @param {string} name */
export const createRoom = async (name) => (await call("POST", "/v1/rooms", { json: { name } })).json();

/** @param {string} roomId @param {object} wanted */
export const createParticipant = async (roomId, wanted) =>
  (await call("POST", `${room(roomId)}/participants`, { json: wanted })).json();

/**
 * Give a participant's place back. The call outlives the page.
 * @param {string} roomId @param {string} participantId @param {string} token
 */
export const leaveRoom = (roomId, participantId, token) =>
  call("DELETE", `${room(roomId)}/participants/${participantId}`, { token, keepalive: true }).catch(() => {});

/** @param {string} roomId @param {string} participantId @param {string} token */
export const readParticipant = async (roomId, participantId, token) =>
  (await call("GET", `${room(roomId)}/participants/${participantId}`, { token })).json();

/**
 * The avatars that the bearer may use.
 * @param {string} token
 * @returns {Promise<{avatar_id: string, name: string|null}[]>}
 */
export const listAvatars = async (token) => (await (await call("GET", "/v1/avatars", { token })).json()).avatars;

/**
 * @param {string} token
 * @param {Blob} picture
 * @param {{kind: "self"|"granted"|"drawn", name: string}} consent
 * @returns {Promise<{avatar_id: string}>}
 */
export async function uploadAvatar(token, picture, consent) {
  const form = new FormData();
  form.append("consent", consent.kind);
  if (consent.kind === "granted") form.append("consent_name", consent.name);
  form.append("image", picture);
  return (await call("POST", "/v1/avatars", { token, form, timeoutMs: UPLOAD_TIMEOUT_MS })).json();
}

/** @param {string} token @param {string} avatarId */
export const deleteAvatar = (token, avatarId) => call("DELETE", `/v1/avatars/${avatarId}`, { token });

/** Faces of the people in the gallery, as small files of the page. @param {string} avatarId */
const thumbnail = (avatarId) => new URL(`./avatars/${encodeURIComponent(avatarId)}.webp`, import.meta.url).href;

/** @type {Map<string, Promise<string|null>>} */
const faces = new Map();

/**
 * A small picture of an avatar. Those of uploaded pictures are fetched with the token and cut to the face.
 * @param {string} avatarId
 * @param {string} token
 * @param {boolean} isBundled
 * @returns {Promise<string|null>} null if it cannot be fetched
 */
export function faceOf(avatarId, token, isBundled) {
  if (isBundled) return Promise.resolve(thumbnail(avatarId));
  const known = faces.get(avatarId);
  if (known !== undefined) return known;
  const fetched = call("GET", `/v1/avatars/${encodeURIComponent(avatarId)}/picture`, { token })
    .then(async (answer) => URL.createObjectURL(await answer.blob()))
    .catch(() => {
      faces.delete(avatarId);
      return null;
    });
  faces.set(avatarId, fetched);
  return fetched;
}

/** Uploaded pictures have ids that no bundled avatar has. @param {string} avatarId */
export const isUploaded = (avatarId) => !/^[a-z]{1,15}$/.test(avatarId);
