// @ts-check
/**
 * A room: who is in it, what they say, and their pictures and voices.
 *
 *     events (WebSocket) -> RoomState -> participants, and events of this class
 *     WHEP with slots    -> RoomReceiver -> video elements of participants, audio elements of the room
 *     camera, microphone -> LocalParticipant -> Publisher (WHIP)
 *
 * @import { Preview } from "./preview.js"
 * @import { Change } from "./room_state.js"
 * @import { DisconnectCode, RoomConnectionState, RoomEvents } from "./room_event.js"
 * @import { Participant } from "./participant.js"
 * @import { RemoteParticipant } from "./remote_participant.js"
 * @import { RoomStats } from "../media/statistics.js"
 */

import { listDevices } from "../media/devices.js";
import { RoomAudio } from "../media/room_audio.js";
import { EventsConnection } from "../network/events_connection.js";
import { Gateway } from "../network/gateway.js";
import { onNetworkChange } from "../network/network_changes.js";
import { RoomReceiver } from "../network/room_receiver.js";
import { Emitter } from "./emitter.js";
import { People } from "./people.js";
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
  /** @type {People|null} */
  #people = null;
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
    return this.#people?.local ?? null;
  }

  /**
   * The others in the room by their ids, in the order of joining.
   * @returns {Map<string, RemoteParticipant>}
   */
  get remoteParticipants() {
    return this.#people?.remote ?? new Map();
  }

  /**
   * For moderators: those who wait in the lobby.
   * @returns {Map<string, RemoteParticipant>}
   */
  get waitingParticipants() {
    return this.#people?.waiting ?? new Map();
  }

  /**
   * Those who speak now, the loudest first.
   * @returns {Participant[]}
   */
  get activeSpeakers() {
    return this.#people?.speakers ?? [];
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
    const gateway = this.#start(gatewayUrl, token, preview);
    this.#publish = publish;
    this.#state = "connecting";
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
   * Show a reaction, such as those of `REACTIONS`: everyone gets the event, and the own avatar moves.
   * @param {string} reaction 1 to 32 characters
   */
  react(reaction) {
    this.#send({ type: "reaction", reaction });
    this.localParticipant?.react(reaction);
  }

  /**
   * For moderators: lock or unlock the room. A locked room admits no new identity.
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
    else await this.localParticipant?.switchDevice(kind, deviceId);
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

  /**
   * @param {string} url
   * @param {string} token
   * @param {Preview|undefined} preview
   */
  #start(url, token, preview) {
    const gateway = new Gateway(url, token);
    const host = { events: this, gateway, send: (/** @type {object} */ message) => this.#send(message) };
    this.#gateway = gateway;
    this.#known = new RoomState();
    this.#people = new People(this, host);
    this.#people.local = preview?.handOver() ?? null;
    this.localParticipant?.moveTo(host);
    this.#receiver = new RoomReceiver(gateway, {
      onSlots: () => this.#place(),
      onVoices: (tracks) => this.#audio.play(tracks),
      // A socket on a dead network is silent for minutes, but a media connection notices in seconds.
      onLost: () => this.#events?.refresh(),
    });
    this.#meter = new RoomMeter(this.#receiver, {
      local: () => this.localParticipant,
      remote: () => this.remoteParticipants,
      onQuality: (participant) => this.emit("connectionQualityChanged", participant),
    });
    this.#events = new EventsConnection({
      gateway,
      since: () => this.#known.sequence,
      onEvent: (event) => this.#known.apply(event).forEach((change) => this.#tell(change)),
      onLost: () => {
        if (this.#state === "connected" || this.#state === "waiting") {
          this.#state = "reconnecting";
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
      this.localParticipant?.restart();
    });
    const leave = () => this.close();
    globalThis.addEventListener("pagehide", leave);
    this.#stopWatching = () => {
      stop();
      globalThis.removeEventListener("pagehide", leave);
    };
  }

  /** @param {object} message */
  #send(message) {
    if (!(this.#events?.send(message) ?? false)) throw new Error("the room is not connected, or too much waits");
  }

  /** @param {Change} change */
  #tell(change) {
    const people = /** @type {People} */ (this.#people);
    switch (change.what) {
      case "entered":
        return this.#entered();
      case "waiting":
        return this.#reach("waiting", () => this.emit("waiting"));
      case "resumed":
        return this.#resumed();
      case "joined":
        return people.join(change.info, change.info.participant_id === this.#known.localId);
      case "changed":
        return people.change(change.info, change.before);
      case "left":
        return people.leave(change.info, change.reason);
      case "knocked":
        return people.knock(change.info);
      case "roomChanged":
        return this.emit("roomUpdated");
      case "message": {
        const { participantId, text, sequence } = change;
        return this.emit("chatMessage", { participant: people.find(participantId), participantId, text, sequence });
      }
      case "reaction": {
        const { participantId, reaction, sequence } = change;
        const participant = people.find(participantId);
        return this.emit("reactionReceived", { participant, participantId, reaction, sequence });
      }
      case "speakers":
        return people.speak(this.#known.speakers);
      case "slots":
        return this.#receiver?.apply(this.#known.slots);
      case "refused":
        return this.emit("messageRefused", change.code, change.detail);
    }
  }

  #entered() {
    this.#connectMedia();
    const local = this.localParticipant;
    if (local === null) return; // the service names everyone in the room, this participant too
    if (this.#publish && local.grants.includes("publish")) local.publisher.start();
    local.onRoomOpen();
    this.#reach("connected", () => this.emit("connected", local));
  }

  #resumed() {
    this.#connectMedia();
    this.localParticipant?.onRoomOpen();
    if (this.#state !== "reconnecting") return;
    this.#state = "connected";
    this.emit("reconnected");
  }

  #connectMedia() {
    const { connection, info } = this.#known;
    this.localParticipant?.useConnection(connection);
    this.#receiver?.use(connection, Math.min(this.#slots, (info?.max_participants ?? 1) - 1));
  }

  /**
   * @param {RoomConnectionState} state
   * @param {() => void} tell
   */
  #reach(state, tell) {
    if (this.#state === state) return;
    this.#state = state;
    tell();
    this.#connecting?.done();
  }

  #place() {
    this.#people?.place(this.#receiver?.slots ?? []);
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
    this.localParticipant?.close();
    this.#audio.close();
    this.#state = "disconnected";
    this.#connecting?.failed(new RoomError(code, text));
    this.emit("disconnected", code, text);
  }
}
