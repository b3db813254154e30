// @ts-check
/**
 * The participants of a room as objects, which stay the same while their descriptions change. Tells the Room's
 * listeners what happens to them.
 * @import { Emitter } from "./emitter.js"
 * @import { Host } from "./local_participant.js"
 * @import { Participant } from "./participant.js"
 * @import { RoomEvents } from "./room_event.js"
 * @import { ParticipantInfo, RoomState } from "./room_state.js"
 * @import { Slot } from "../network/room_receiver.js"
 */

import { LocalParticipant } from "./local_participant.js";
import { RemoteParticipant } from "./remote_participant.js";

export class People {
  #events;
  #host;
  /** @type {Slot[]} */
  #slots = [];
  /** @type {LocalParticipant|null} */
  local = null;
  /** In the order of joining. @type {Map<string, RemoteParticipant>} */
  remote = new Map();
  /** In the lobby. @type {Map<string, RemoteParticipant>} */
  waiting = new Map();
  /** The loudest first. @type {Participant[]} */
  speakers = [];

  /**
   * @param {Emitter<RoomEvents>} events
   * @param {Host} host of the local participant
   */
  constructor(events, host) {
    this.#events = events;
    this.#host = host;
  }

  /** @param {string} id */
  find(id) {
    return this.local?.id === id ? this.local : (this.remote.get(id) ?? null);
  }

  /**
   * @param {ParticipantInfo} info
   * @param {boolean} isLocal
   */
  join(info, isLocal) {
    this.waiting.delete(info.participant_id);
    if (isLocal) {
      if (this.local === null) this.local = new LocalParticipant(info, this.#host);
      else this.local.update(info); // a Preview's
      return;
    }
    const participant = new RemoteParticipant(info);
    this.remote.set(participant.id, participant);
    this.#events.emit("participantConnected", participant);
    this.place(this.#slots); // its place may be known before it
  }

  /**
   * @param {ParticipantInfo} info
   * @param {ParticipantInfo} before
   */
  change(info, before) {
    const participant = this.find(info.participant_id);
    if (participant === null) return;
    participant.update(info);
    this.#events.emit("participantUpdated", participant);
    if (before.muted !== info.muted) this.#events.emit(info.muted ? "trackMuted" : "trackUnmuted", participant);
  }

  /**
   * @param {ParticipantInfo} info
   * @param {string} reason
   */
  leave({ participant_id: id }, reason) {
    this.waiting.delete(id);
    const participant = this.remote.get(id);
    if (participant === undefined) return;
    this.remote.delete(id);
    this.#placeOne(participant, null);
    this.#events.emit("participantDisconnected", participant, reason);
    if (!this.speakers.includes(participant)) return;
    this.speakers = this.speakers.filter((one) => one !== participant);
    this.#events.emit("activeSpeakersChanged", this.speakers);
  }

  /** @param {ParticipantInfo} info */
  knock(info) {
    const participant = new RemoteParticipant(info);
    this.waiting.set(participant.id, participant);
    this.#events.emit("participantWaiting", participant);
  }

  /** @param {RoomState["speakers"]} speakers */
  speak(speakers) {
    const levels = new Map(speakers.map((one) => [one.participant_id, one.level]));
    for (const participant of [this.local, ...this.remote.values()]) {
      if (participant === null) continue;
      participant.isSpeaking = levels.has(participant.id);
      participant.audioLevel = levels.get(participant.id) ?? 0;
    }
    this.speakers = [...levels.keys()].map((id) => this.find(id)).filter((one) => one !== null);
    this.#events.emit("activeSpeakersChanged", this.speakers);
  }

  /** @param {Slot[]} slots who is in which place of the connection */
  place(slots) {
    this.#slots = slots;
    const byParticipant = new Map(slots.map((slot) => [slot.participantId, slot]));
    for (const one of this.remote.values()) this.#placeOne(one, byParticipant.get(one.id) ?? null);
  }

  /**
   * @param {RemoteParticipant} participant
   * @param {Slot|null} slot
   */
  #placeOne(participant, slot) {
    const hadVideo = participant.hasVideo;
    participant.place(slot);
    if (participant.hasVideo === hadVideo) return;
    this.#events.emit(hadVideo ? "trackUnsubscribed" : "trackSubscribed", participant);
  }
}
