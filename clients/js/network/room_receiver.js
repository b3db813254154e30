// @ts-check
/**
 * Pictures and voices of the others: one WHEP connection with places ("slots"). The server moves participants into and
 * out of places without a new offer, and says who is where by the event `slots`.
 * @import { Gateway } from "./gateway.js"
 * @import { Connection, RoomState } from "../room/room_state.js"
 * @import { LinkState } from "./peer_link.js"
 */

import { PeerLink } from "./peer_link.js";
import { offerH264, offerOpus } from "./sdp.js";

/**
 * A place: the i-th picture and the i-th voice of the connection. Its tracks stay the same until the connection ends.
 * @typedef {{index: number, video: MediaStreamTrack, audio: MediaStreamTrack, videoMid: string|null,
 *   audioMid: string|null, participantId: string|null}} Slot
 */

/**
 * onSlots: after each change of who is where. onVoices: the voices of a new connection, before anything arrives: what
 * comes while nothing plays it would wait in the browser. onLost: an established connection was lost; it is being made again.
 * @typedef {{onSlots: (slots: Slot[]) => void, onVoices: (tracks: MediaStreamTrack[]) => void,
 *   onLost: () => void}} ReceiverOptions
 */

export class RoomReceiver {
  #link;
  #options;
  /** @type {{video: RTCRtpTransceiver, audio: RTCRtpTransceiver}[]} */
  #pairs = [];
  /** @type {Slot[]} */
  #slots = [];
  /** The newest event, which may come before the answer to the offer. @type {RoomState["slots"]} */
  #told = null;
  #count = 0;
  /** @type {LinkState} */
  #before = "idle";
  /** @type {string|null} */
  #url = null;

  /**
   * @param {Gateway} gateway
   * @param {ReceiverOptions} options
   */
  constructor(gateway, options) {
    this.#options = options;
    this.#link = new PeerLink({
      endpoint: () => /** @type {string} */ (this.#url),
      authorization: () => gateway.authorization,
      prepare: (peer) => this.#prepare(peer),
      onState: (state) => this.#follow(state),
    });
  }

  get slots() {
    return this.#slots;
  }

  get peer() {
    return this.#link.peer;
  }

  get state() {
    return this.#link.state;
  }

  /**
   * Receive by this connection.
   * @param {Connection|null} connection
   * @param {number} count how many places to ask for
   */
  use(connection, count) {
    const url = connection?.whep_url ?? null;
    if (connection !== null) this.#link.iceServers = connection.ice_servers;
    if (url === this.#url && count <= this.#count) return;
    this.#url = url;
    this.#count = count;
    this.#link.stop();
    if (url !== null && count > 0) this.#link.start();
  }

  /** @param {RoomState["slots"]} told the newest event `slots` */
  apply(told) {
    this.#told = told;
    this.#place();
  }

  restart() {
    this.#link.restart();
  }

  close() {
    this.#url = null;
    this.#link.stop();
  }

  /** @param {RTCPeerConnection} peer */
  #prepare(peer) {
    this.#pairs = Array.from({ length: this.#count }, () => {
      const video = peer.addTransceiver("video", { direction: "recvonly" });
      offerH264(video);
      // The smallest buffer that the network's jitter allows; the browser enlarges it as needed, for the voice too.
      if ("jitterBufferTarget" in video.receiver) video.receiver.jitterBufferTarget = 0;
      const audio = peer.addTransceiver("audio", { direction: "recvonly" });
      offerOpus(audio);
      return { video, audio };
    });
    this.#slots = this.#pairs.map(({ video, audio }, index) => ({
      index,
      video: video.receiver.track,
      audio: audio.receiver.track,
      videoMid: null,
      audioMid: null,
      participantId: null,
    }));
    this.#options.onVoices(this.#slots.map((slot) => slot.audio));
  }

  /**
   * Until a new connection is there, its participants keep their last pictures.
   * @param {LinkState} state
   */
  #follow(state) {
    if (state === "answered" || state === "connected") this.#place();
    if (state === "idle" || state === "failed") this.#options.onSlots((this.#slots = []));
    if (state === "reconnecting" && this.#before === "connected") this.#options.onLost();
    this.#before = state;
  }

  #place() {
    if (this.#told === null || this.#told.viewerId !== this.#link.id) return;
    const who = new Map(this.#told.slots.map((one) => [one.video_mid, one.participant_id]));
    this.#slots = this.#slots.map((slot, i) => ({
      ...slot,
      videoMid: this.#pairs[i].video.mid,
      audioMid: this.#pairs[i].audio.mid,
      participantId: who.get(this.#pairs[i].video.mid ?? "") ?? null,
    }));
    this.#options.onSlots(this.#slots);
  }
}
