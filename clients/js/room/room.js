// @ts-check
/**
 * A room: who is in it, what they say, and their pictures and voices.
 *
 *     events (WebSocket) -> RoomState -> participants, and events of this class
 *     WHEP with slots    -> RoomReceiver -> video elements of participants, audio elements of the room
 *     camera, microphone -> LocalParticipant -> Publisher (WHIP)
 *
 * @import { Preview } from "./preview.js"
 * @import { Change, ParticipantInfo } from "./room_state.js"
 * @import { DisconnectCode, RoomConnectionState, RoomEvents } from "./room_event.js"
 * @import { Participant } from "./participant.js"
 * @import { RoomStats } from "../media/statistics.js"
 */

import { listDevices } from "../media/devices.js";
import { RoomAudio } from "../media/room_audio.js";
import { EventsConnection } from "../network/events_connection.js";
import { Gateway } from "../network/gateway.js";
import { onNetworkChange } from "../network/network_changes.js";
import { RoomReceiver } from "../network/room_receiver.js";
import { Emitter } from "./emitter.js";
import { LocalParticipant } from "./local_participant.js";
import { RemoteParticipant } from "./remote_participant.js";
import { RoomError } from "./room_event.js";
import { RoomMeter } from "./room_meter.js";
import { RoomState } from "./room_state.js";

const CONNECT_TIMEOUT_MS = 20_000;
/** Places for other people's pictures in one connection; the service refuses more. */
const MOST_SLOTS = 12;

/**
 * publish: connect the uplink at once, and not when camera or microphone are switched on first. preview: go on with its
 * camera, microphone and uplink.
 * @typedef {{publish?: boolean, preview?: Preview}} ConnectOptions
 */

/** @extends {Emitter<RoomEvents>} */
export class Room extends Emitter {
  #known = new RoomState();
  /** @type {RoomConnectionState} */
  #state = "disconnected";
  /** @type {Gateway|null} */
  #gateway = null;
  /** @type {EventsConnection|null} */
  #events = null;
  /** @type {RoomReceiver|null} */
  #receiver = null;
  /** @type {RoomMeter|null} */
  #meter = null;
  #audio = new RoomAudio((canPlay) => this.emit("audioPlaybackStatusChanged", canPlay));
  /** @type {LocalParticipant|null} */
  #local = null;
  /** @type {Map<string, RemoteParticipant>} */
  #remote = new Map();
  /** @type {Map<string, RemoteParticipant>} */
  #waiting = new Map();
  /** @type {Participant[]} */
  #speakers = [];
  #slots;
  #publish = true;
  /** @type {{done: () => void, failed: (error: RoomError) => void}|null} */
  #connecting = null;
  /** Ends what concerns the page and the network. */
  #stopWatching = () => {};

  /** @param {{slots?: number}} [options] slots: at most so many other people are seen at once, 0 to 12 */
  constructor({ slots = MOST_SLOTS } = {}) {
    super();
    this.#slots = Math.min(slots, MOST_SLOTS);
  }

  /**
   * Devices of a kind; their labels are empty until one was allowed.
   * @param {MediaDeviceKind} kind
   */
  static getLocalDevices(kind) {
    return listDevices(kind);
  }

  get state() {
    return this.#state;
  }

  /** Null before `connect()`. */
  get roomId() {
    return this.#gateway?.roomId ?? null;
  }

  get name() {
    return this.#known.info?.name ?? null;
  }

  get locked() {
    return this.#known.info?.locked ?? false;
  }

  /** The application's own text about the room. */
  get metadata() {
    return this.#known.info?.metadata ?? "";
  }

  /** The person at this device. Null until the room's state is known, so in the lobby, too. */
  get localParticipant() {
    return this.#local;
  }

  /** The others in the room, in the order of joining. */
  get remoteParticipants() {
    return this.#remote;
  }

  /** For moderators: those who wait in the lobby. */
  get waitingParticipants() {
    return this.#waiting;
  }

  /** Those who speak now, the loudest first. */
  get activeSpeakers() {
    return this.#speakers;
  }

  /** Whether voices are heard. If not, call `startAudio()` in a click. */
  get canPlaybackAudio() {
    return this.#audio.canPlay;
  }

  /**
   * Enter the room. Resolves when its state is known, or when this participant waits in the lobby.
   * @param {string} gatewayUrl the gateway's address, absolute or relative to the page
   * @param {string} token the participant's, from POST /v1/rooms/{id}/participants
   * @param {ConnectOptions} [options]
   * @throws {RoomError} it may not enter, or the service does not answer within 20 seconds
   */
  async connect(gatewayUrl, token, { publish = true, preview } = {}) {
    if (this.#state !== "disconnected") throw new Error("the room is connected already");
    this.#reset();
    const gateway = this.#start(gatewayUrl, token);
    this.#publish = publish;
    this.#local = preview?.handOver() ?? null;
    this.#local?.moveTo(this.#host(gateway));
    this.#setState("connecting");
    const timer = setTimeout(() => {
      this.#end("unreachable", `${gateway.url.host} does not answer`);
    }, CONNECT_TIMEOUT_MS);
    try {
      await new Promise((resolve, reject) => {
        this.#connecting = { done: () => resolve(undefined), failed: reject };
      });
    } finally {
      clearTimeout(timer);
      this.#connecting = null;
    }
  }

  /** Leave the room for good. */
  async disconnect() {
    const gateway = this.#gateway;
    if (gateway === null || this.#state === "disconnected") return;
    this.#end("left", "this participant has left the room");
    await gateway.removeParticipant(gateway.participantId, { keepalive: true }).catch(() => {});
  }

  /** Close all connections. The participant stays in the room for a while (a minute), so that it may come back. */
  close() {
    if (this.#state !== "disconnected") this.#end("closed", "this client closed its connections");
  }

  /** Play voices that the browser has refused to play; call it in a click. */
  async startAudio() {
    await this.#audio.start();
  }

  /**
   * Say something to everyone in the room.
   * @param {string} text 1 to 2000 characters
   */
  sendMessage(text) {
    this.#send({ type: "message", text });
  }

  /**
   * Show a reaction, such as those of `REACTIONS`.
   * @param {string} reaction 1 to 32 characters
   */
  react(reaction) {
    this.#send({ type: "reaction", reaction });
  }

  /**
   * For moderators: let nobody new in, or let people in again.
   * @param {boolean} locked
   */
  async lock(locked) {
    await this.#connected.lock(locked);
  }

  /** For moderators: end the room for everyone. */
  async end() {
    await this.#connected.endRoom();
  }

  /**
   * For moderators: let a participant in that waits in the lobby.
   * @param {Participant} participant
   */
  async admit(participant) {
    await this.#connected.changeParticipant(participant.id, { admitted: true });
  }

  /**
   * For moderators: send a participant away.
   * @param {Participant} participant
   */
  async remove(participant) {
    await this.#connected.removeParticipant(participant.id);
  }

  /**
   * For moderators: mute a participant. Only it can unmute itself.
   * @param {Participant} participant
   */
  async mute(participant) {
    await this.#connected.changeParticipant(participant.id, { muted: true });
  }

  /**
   * For moderators: lower a participant's hand.
   * @param {Participant} participant
   */
  async lowerHand(participant) {
    await this.#connected.changeParticipant(participant.id, { hand: false });
  }

  /**
   * Use another camera, microphone or loudspeaker.
   * @param {MediaDeviceKind} kind
   * @param {string} deviceId
   */
  async switchActiveDevice(kind, deviceId) {
    if (kind === "audiooutput") await this.#audio.useSpeaker(deviceId);
    else await this.#local?.switchDevice(kind, deviceId);
  }

  /**
   * What is received and sent, over the last seconds. Participants by their ids.
   * @returns {Promise<RoomStats>}
   */
  async getStats() {
    return this.#meter?.read() ?? { participants: {}, local: { fps: 0, uplinkKbitS: 0, rttMs: null }, transport: null };
  }

  get #connected() {
    if (this.#gateway === null || this.#state === "disconnected") throw new Error("the room is not connected");
    return this.#gateway;
  }

  #reset() {
    this.#known = new RoomState();
    this.#remote = new Map();
    this.#waiting = new Map();
    this.#speakers = [];
  }

  /**
   * @param {string} url
   * @param {string} token
   */
  #start(url, token) {
    const gateway = new Gateway(url, token);
    this.#gateway = gateway;
    this.#receiver = new RoomReceiver(gateway, { onSlots: () => this.#place(), onState: () => {} });
    this.#meter = new RoomMeter(this.#receiver, {
      local: () => this.#local,
      remote: () => this.#remote,
      onQuality: (participant) => this.emit("connectionQualityChanged", participant),
    });
    this.#events = new EventsConnection({
      gateway,
      since: () => this.#known.sequence,
      onEvent: (event) => this.#known.apply(event).forEach((change) => this.#tell(change)),
      onLost: () => {
        if (this.#state === "connected" || this.#state === "waiting") {
          this.#setState("reconnecting");
          this.emit("reconnecting");
        }
      },
      onEnd: (code, text) => this.#end(code, text),
    });
    this.#watchPage();
    return gateway;
  }

  #watchPage() {
    const stop = onNetworkChange(() => {
      this.#events?.refresh();
      this.#receiver?.restart();
      this.#local?.restart();
    });
    const leave = () => this.close();
    globalThis.addEventListener("pagehide", leave);
    this.#stopWatching = () => {
      stop();
      globalThis.removeEventListener("pagehide", leave);
    };
  }

  /** @param {Gateway} gateway */
  #host(gateway) {
    return { events: this, gateway, send: (/** @type {object} */ message) => this.#send(message) };
  }

  /** @param {object} message */
  #send(message) {
    if (!(this.#events?.send(message) ?? false)) throw new Error("the room is not connected, or too much waits");
  }

  /** @param {Change} change */
  #tell(change) {
    switch (change.what) {
      case "entered":
        return this.#entered();
      case "waiting":
        return this.#reach("waiting", () => this.emit("waiting"));
      case "resumed":
        return this.#resumed();
      case "joined":
        return this.#joined(change.info);
      case "changed":
        return this.#changed(change.info, change.before);
      case "left":
        return this.#left(change.info, change.reason);
      case "knocked":
        return this.#knocked(change.info);
      case "roomChanged":
        return this.emit("roomUpdated");
      case "message": {
        const { participantId, text, sequence } = change;
        return this.emit("chatMessage", { participant: this.#find(participantId), participantId, text, sequence });
      }
      case "reaction": {
        const { participantId, reaction, sequence } = change;
        const participant = this.#find(participantId);
        return this.emit("reactionReceived", { participant, participantId, reaction, sequence });
      }
      case "speakers":
        return this.#speak();
      case "slots":
        return this.#receiver?.apply(this.#known.slots);
      case "refused":
        return this.emit("messageRefused", change.code, change.detail);
    }
  }

  #entered() {
    this.#connectMedia();
    if (this.#publish && this.#local?.grants.includes("publish")) this.#local.publisher.start();
    this.#local?.onRoomOpen();
    this.#reach("connected", () => this.emit("connected"));
  }

  #resumed() {
    this.#connectMedia();
    this.#local?.onRoomOpen();
    if (this.#state !== "reconnecting") return;
    this.#setState("connected");
    this.emit("reconnected");
  }

  #connectMedia() {
    const { connection, info } = this.#known;
    this.#local?.useConnection(connection);
    this.#receiver?.use(connection, Math.min(this.#slots, (info?.max_participants ?? 1) - 1));
  }

  /**
   * @param {RoomConnectionState} state
   * @param {() => void} tell
   */
  #reach(state, tell) {
    if (this.#state === state) return;
    this.#setState(state);
    tell();
    this.#connecting?.done();
  }

  /** @param {ParticipantInfo} info */
  #joined(info) {
    this.#waiting.delete(info.participant_id);
    if (info.participant_id === this.#known.localId) {
      if (this.#local === null) this.#local = new LocalParticipant(info, this.#host(this.#connected));
      else this.#local.update(info);
      return;
    }
    const participant = new RemoteParticipant(info);
    this.#remote.set(participant.id, participant);
    this.emit("participantConnected", participant);
    this.#place(); // its place may be known before it
  }

  /**
   * @param {ParticipantInfo} info
   * @param {ParticipantInfo} before
   */
  #changed(info, before) {
    const participant = this.#find(info.participant_id);
    if (participant === null) return;
    participant.update(info);
    this.emit("participantUpdated", participant);
    if (before.muted !== info.muted) this.emit(info.muted ? "trackMuted" : "trackUnmuted", participant);
  }

  /**
   * @param {ParticipantInfo} info
   * @param {string} reason
   */
  #left({ participant_id: id }, reason) {
    this.#waiting.delete(id);
    const participant = this.#remote.get(id);
    if (participant === undefined) return;
    this.#remote.delete(id);
    if (participant.hasVideo) {
      participant.place(null);
      this.emit("trackUnsubscribed", participant);
    }
    this.emit("participantDisconnected", participant, reason);
    if (this.#speakers.includes(participant)) this.#speak();
  }

  /** @param {ParticipantInfo} info */
  #knocked(info) {
    const participant = new RemoteParticipant(info);
    this.#waiting.set(participant.id, participant);
    this.emit("participantWaiting", participant);
  }

  #speak() {
    const levels = new Map(this.#known.speakers.map((one) => [one.participant_id, one.level]));
    for (const participant of this.#everyone) {
      participant.isSpeaking = levels.has(participant.id);
      participant.audioLevel = levels.get(participant.id) ?? 0;
    }
    const found = [...levels.keys()].map((id) => this.#find(id));
    this.#speakers = found.filter((one) => one !== null);
    this.emit("activeSpeakersChanged", this.#speakers);
  }

  #place() {
    const slots = this.#receiver?.slots ?? [];
    this.#audio.play(slots.map((slot) => slot.audio));
    const byParticipant = new Map(slots.map((slot) => [slot.participantId, slot]));
    for (const participant of this.#remote.values()) {
      const hadVideo = participant.hasVideo;
      participant.place(byParticipant.get(participant.id) ?? null);
      if (participant.hasVideo === hadVideo) continue;
      this.emit(hadVideo ? "trackUnsubscribed" : "trackSubscribed", participant);
    }
  }

  get #everyone() {
    return [...(this.#local === null ? [] : [this.#local]), ...this.#remote.values()];
  }

  /** @param {string} id */
  #find(id) {
    return this.#local?.id === id ? this.#local : (this.#remote.get(id) ?? null);
  }

  /**
   * @param {DisconnectCode} code
   * @param {string} text
   */
  #end(code, text) {
    this.#stopWatching();
    this.#events?.close();
    this.#receiver?.close();
    this.#meter?.close();
    this.#local?.close();
    this.#audio.close();
    this.#setState("disconnected");
    this.#connecting?.failed(new RoomError(code, text));
    this.emit("disconnected", code, text);
  }

  /** @param {RoomConnectionState} state */
  #setState(state) {
    this.#state = state;
  }
}
