// @ts-check
/**
 * What a client knows of its room, from the events that it gets. Pure.
 *
 * `apply` takes one event and returns what has changed, in the order in which an application should hear of it.
 * Unknown events are ignored, as docs/conference.md asks.
 */

/**
 * A participant as the service describes it. state: waiting (in the lobby) or active.
 * @typedef {object} ParticipantInfo
 * @property {string} participant_id
 * @property {string} identity
 * @property {string} name
 * @property {string} state
 * @property {string[]} grants
 * @property {boolean} muted
 * @property {boolean} hand
 * @property {string|null} avatar_id
 * @property {string|null} session_id
 * @property {string|null} whep_url
 * @property {number} [joined_at_ms]
 */

/**
 * @typedef {{room_id: string, name: string|null, locked: boolean, lobby: boolean, metadata: string,
 *   max_participants: number}} RoomInfo
 */

/**
 * Where this participant sends and receives. Null: it may not.
 * @typedef {{whip_url: string|null, whep_url: string|null, uplink_url: string|null,
 *   ice_servers: RTCIceServer[]}} Connection
 */

/**
 * Who is in which place of a WHEP connection. participant_id: null for an empty place.
 * @typedef {{slot: number, video_mid: string, audio_mid: string|null, participant_id: string|null}} SlotInfo
 */

/**
 * One change. `entered`: the first state, or the first after the lobby; `resumed`: events go on after a loss, none was
 * missed or all that was missed is in the other changes.
 * @typedef {{what: "entered"} | {what: "waiting"} | {what: "resumed"}
 *   | {what: "joined", info: ParticipantInfo}
 *   | {what: "knocked", info: ParticipantInfo}
 *   | {what: "changed", info: ParticipantInfo, before: ParticipantInfo}
 *   | {what: "left", info: ParticipantInfo, reason: string}
 *   | {what: "roomChanged"}
 *   | {what: "message", participantId: string, text: string, sequence: number}
 *   | {what: "reaction", participantId: string, reaction: string, sequence: number}
 *   | {what: "speakers"} | {what: "slots"}
 *   | {what: "refused", code: string, detail: string}} Change
 */

import { iceServersOf } from "../network/sdp.js";

export class RoomState {
  /** @type {RoomInfo|null} */
  info = null;
  /** In the order of joining; this participant too, and those in the lobby if it may see them. */
  /** @type {Map<string, ParticipantInfo>} */
  participants = new Map();
  /** @type {string|null} */
  localId = null;
  /** The number of the newest event; null before the first state. */
  /** @type {number|null} */
  sequence = null;
  /** @type {Connection|null} */
  connection = null;
  /** The loudest first; level 0..1. */
  /** @type {{participant_id: string, level: number}[]} */
  speakers = [];
  /** @type {{viewerId: string, slots: SlotInfo[]}|null} */
  slots = null;

  get local() {
    return this.participants.get(this.localId ?? "") ?? null;
  }

  /**
   * @param {Record<string, any>} event one event of the service
   * @returns {Change[]}
   */
  apply(event) {
    if (Number.isSafeInteger(event.sequence)) this.sequence = event.sequence;
    switch (event.type) {
      case "room":
        return this.#whole(event);
      case "waiting":
        this.localId = event.participant_id;
        return [{ what: "waiting" }];
      case "resumed":
        return [{ what: "resumed" }];
      case "participant_joined":
      case "participant_updated":
      case "participant_waiting":
        return this.#put(event.participant);
      case "participant_left":
        return this.#remove(event.participant_id, event.reason ?? "left");
      case "room_updated":
        this.info = event.room;
        return [{ what: "roomChanged" }];
      case "message":
        return [
          { what: "message", participantId: event.participant_id, text: event.text, sequence: event.sequence },
        ];
      case "reaction":
        return [
          { what: "reaction", participantId: event.participant_id, reaction: event.reaction, sequence: event.sequence },
        ];
      case "active_speakers":
        this.speakers = event.speakers;
        return [{ what: "speakers" }];
      case "slots":
        this.slots = { viewerId: event.viewer_id, slots: event.slots };
        return [{ what: "slots" }];
      case "error":
        return [{ what: "refused", code: event.code ?? "", detail: event.detail ?? "" }];
      default:
        return [];
    }
  }

  /**
   * The whole state replaces what was known; an application is told the difference.
   * @param {Record<string, any>} event
   * @returns {Change[]}
   */
  #whole(event) {
    const [isFirst, before, info] = [this.info === null, this.participants, this.info];
    this.info = event.room;
    this.localId = event.participant_id;
    const { connection } = event;
    if (connection) this.connection = { ...connection, ice_servers: iceServersOf(connection.ice_servers) };
    const now = new Map(event.participants.map((/** @type {ParticipantInfo} */ one) => [one.participant_id, one]));
    this.participants = new Map([...before].filter(([id]) => now.has(id)));
    /** @type {Change[]} */
    const changes = [...before.values()]
      .filter((one) => !now.has(one.participant_id))
      .map((one) => ({ what: "left", info: one, reason: "away" }));
    for (const one of now.values()) changes.push(...this.#put(one));
    if (isFirst) return [...changes, { what: "entered" }];
    const isSame = JSON.stringify(info) === JSON.stringify(this.info);
    return [...changes, ...(isSame ? [] : [/** @type {Change} */ ({ what: "roomChanged" })]), { what: "resumed" }];
  }

  /**
   * @param {ParticipantInfo} info
   * @returns {Change[]}
   */
  #put(info) {
    const before = this.participants.get(info.participant_id);
    this.participants.set(info.participant_id, info);
    const wasHere = before !== undefined && before.state !== "waiting";
    if (info.state === "waiting") return before === undefined ? [{ what: "knocked", info }] : [];
    if (!wasHere) return [{ what: "joined", info }];
    return JSON.stringify(before) === JSON.stringify(info) ? [] : [{ what: "changed", info, before }];
  }

  /**
   * @param {string} id
   * @param {string} reason
   * @returns {Change[]}
   */
  #remove(id, reason) {
    const info = this.participants.get(id);
    if (info === undefined) return [];
    this.participants.delete(id);
    this.speakers = this.speakers.filter((one) => one.participant_id !== id);
    return [{ what: "left", info, reason }];
  }
}
