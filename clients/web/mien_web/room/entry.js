// @ts-check
/**
 * How a person gets into a room: by the token in the link, or, on an open demo, by a name alone.
 */

import { ApiError, createParticipant, createRoom, findRoom, readParticipant, readRoom } from "./gateway.js";

const TOKENS = "mien-room-tokens";
const IDENTITY = "mien-identity";
const NAME = "mien-name";
const AVATAR = "mien-avatar";

/**
 * What the page knows before one joins.
 * @typedef {object} Entry
 * @property {string} roomId
 * @property {string|null} roomName
 * @property {string} token
 * @property {string} participantId
 * @property {string} name the person's
 * @property {boolean} isDemo a name was enough: it can be changed here
 * @property {string|null} avatarId
 * @property {boolean} mayPublish
 * @property {boolean} isWaiting in the lobby
 * @property {string[]} present names of those who are in the room
 */

/**
 * The room and the token of the page's address. Pure.
 * @param {{pathname: string, hash: string}} address
 * @returns {{room: string, token: string|null}}
 */
export function readAddress({ pathname, hash }) {
  const last = pathname.replace(/\/+$/, "").split("/").at(-1) ?? "";
  let room = last;
  try {
    room = decodeURIComponent(last);
  } catch {
    // not an encoded name: as it is
  }
  return { room, token: new URLSearchParams(hash.slice(1)).get("token") || null };
}

/**
 * Room and participant that a token names; the services check it. Pure.
 * @param {string} token
 * @returns {{roomId: string, participantId: string, expiresAtS: number}|null} null: it is no participant's token
 */
export function readToken(token) {
  try {
    const claims = JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    if (typeof claims.sub !== "string" || typeof claims.room !== "string") return null;
    return { roomId: claims.room, participantId: claims.sub, expiresAtS: Number(claims.exp) };
  } catch {
    return null;
  }
}

/** Names that a room may have; the gateway has the same rule. Pure. @param {string} name */
export const isRoomName = (name) => /^[A-Za-z0-9_-]{1,64}$/.test(name);

/**
 * Find the room and get a participant in it.
 * @param {Location} address
 * @returns {Promise<Entry>}
 * @throws {ApiError} with the code that says why not; a TypeError without network
 */
export async function enter(address) {
  const { room, token: given } = readAddress(address);
  // The token must not stay in the address bar, the history or a shared screen.
  if (given !== null) history.replaceState(null, "", address.pathname);
  const token = given ?? keptToken(room);
  if (token !== null) {
    try {
      return await byToken(token, room);
    } catch (error) {
      if (given !== null || !(error instanceof ApiError) || error.status === 0) throw error;
      keepToken(room, null); // an old one: perhaps a name is enough
    }
  }
  return byName(room, rememberedName(), rememberedAvatar());
}

/**
 * @param {string} token
 * @param {string} room the address's
 * @returns {Promise<Entry>}
 */
async function byToken(token, room) {
  const claims = readToken(token);
  if (claims === null) throw new ApiError(401, "token-invalid", "");
  const { roomId, participantId } = claims;
  const own = await readParticipant(roomId, participantId, token);
  const isWaiting = own.state === "waiting";
  const seen = isWaiting ? null : await readRoom(roomId, token);
  keepToken(room, token);
  return {
    roomId,
    roomName: seen?.name ?? (room === roomId ? null : room),
    token,
    participantId,
    name: own.name || own.identity,
    isDemo: false,
    avatarId: own.avatar_id,
    mayPublish: own.grants.includes("publish"),
    isWaiting,
    present: names(seen?.participants ?? [], participantId),
  };
}

/**
 * On an open demo the page makes the room and the participant itself.
 * @param {string} room
 * @param {string} name
 * @param {string|null} avatarId null: the first of the gallery
 * @returns {Promise<Entry>}
 */
export async function byName(room, name, avatarId) {
  if (!isRoomName(room)) throw new ApiError(422, "bad-name", "");
  // A room's address names it or has its id, which has sixteen characters.
  const found = (room.length === 16 ? await findRoom(room) : null) ?? (await createRoom(room));
  const seen = await readRoom(found.room_id, null);
  const identity = ownIdentity();
  const others = seen.participants.filter((/** @type {any} */ one) => one.identity !== identity);
  const moderates = !others.some((/** @type {any} */ one) => one.grants.includes("moderate"));
  const grants = ["publish", "watch", ...(moderates ? ["moderate"] : [])];
  const wanted = { identity, name, grants };
  const made = await createParticipant(found.room_id, { ...wanted, avatar_id: avatarId ?? "mien" }).catch((error) => {
    // The picture that was remembered is gone.
    if (error.code !== "avatar-not-found") throw error;
    return createParticipant(found.room_id, { ...wanted, avatar_id: "mien" });
  });
  return {
    roomId: found.room_id,
    roomName: found.name,
    token: made.token,
    participantId: made.participant_id,
    name,
    isDemo: true,
    avatarId: made.session === null ? null : (avatarId ?? "mien"),
    mayPublish: true,
    isWaiting: made.state === "waiting",
    present: names(others, made.participant_id),
  };
}

/**
 * @param {any[]} participants
 * @param {string} ownId
 * @returns {string[]}
 */
function names(participants, ownId) {
  return participants
    .filter((one) => one.participant_id !== ownId && one.state === "active")
    .map((one) => one.name || one.identity);
}

/** The same person for a reload, another one in another tab. */
function ownIdentity() {
  const made = crypto.randomUUID?.() ?? `guest-${Math.random().toString(36).slice(2)}`;
  return stored(sessionStorage, IDENTITY) ?? store(sessionStorage, IDENTITY, made);
}

export const rememberedName = () => stored(localStorage, NAME) ?? "";
/** @param {string} name */
export const rememberName = (name) => store(localStorage, NAME, name);
const rememberedAvatar = () => stored(localStorage, AVATAR);
/** @param {string|null} avatarId */
export const rememberAvatar = (avatarId) => store(localStorage, AVATAR, avatarId ?? "");

/** @param {string} room */
function keptToken(room) {
  try {
    return JSON.parse(stored(sessionStorage, TOKENS) ?? "{}")[room] ?? null;
  } catch {
    return null;
  }
}

/** @param {string} room @param {string|null} token */
export function keepToken(room, token) {
  store(sessionStorage, TOKENS, JSON.stringify(token === null ? {} : { [room]: token }));
}

/** @param {Storage} where @param {string} key */
function stored(where, key) {
  try {
    return where.getItem(key) || null;
  } catch {
    return null; // the browser may forbid storage
  }
}

/** @param {Storage} where @param {string} key @param {string} value */
function store(where, key, value) {
  try {
    where.setItem(key, value);
  } catch {
    // as above
  }
  return value;
}
