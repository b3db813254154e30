// @ts-check
/**
 * What local and remote participants have in common.
 * @import { ParticipantInfo } from "./room_state.js"
 * @import { ConnectionQuality } from "./room_event.js"
 */

/** A person in the room. Its properties follow the room; an application only reads them. */
export class Participant {
  /** @type {ParticipantInfo} */
  #info;
  /** @type {ConnectionQuality} how well its picture and voice arrive here; for the local one, how well they leave */
  connectionQuality = "unknown";
  isSpeaking = false;
  /** 0..1; of those who speak */
  audioLevel = 0;

  /** @param {ParticipantInfo} info */
  constructor(info) {
    this.#info = info;
  }

  get id() {
    return this.#info.participant_id;
  }

  /** The application's name for the person. */
  get identity() {
    return this.#info.identity;
  }

  /** The name to show; the identity if none was given. */
  get name() {
    return this.#info.name || this.#info.identity;
  }

  get isMuted() {
    return this.#info.muted;
  }

  /** Whether the hand is raised. */
  get hand() {
    return this.#info.hand;
  }

  /** Null for a listener. */
  get avatarId() {
    return this.#info.avatar_id ?? null;
  }

  /** The session of the avatar; null for a listener. */
  get sessionId() {
    return this.#info.session_id ?? null;
  }

  /** Of "publish", "watch", "moderate". */
  get grants() {
    return this.#info.grants;
  }

  /** Whether it waits in the lobby. */
  get isWaiting() {
    return this.#info.state === "waiting";
  }

  /** Unix milliseconds, 0 if unknown. */
  get joinedAtMs() {
    return this.#info.joined_at_ms ?? 0;
  }

  get isLocal() {
    return false;
  }

  /** @internal */
  get info() {
    return this.#info;
  }

  /**
   * @internal
   * @param {ParticipantInfo} info
   */
  update(info) {
    this.#info = info;
  }
}
