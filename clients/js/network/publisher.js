// @ts-check
/**
 * What this device sends: motion and voice over one peer connection (WHIP), motion over a WebSocket until that is up.
 *
 *     start -> WebSocket carries motion -> WHIP's data channel opens -> the WebSocket is closed
 *     WHIP is lost -> WebSocket again, and WHIP tries again
 *
 * The newest uplink owns the session on the server, so the two are never opened against each other: the WebSocket is
 * opened only while WHIP has no session. No picture is sent: the offer has no video section.
 * @import { Gateway } from "./gateway.js"
 * @import { Connection } from "../room/room_state.js"
 * @import { LinkState } from "./peer_link.js"
 */

import { PeerLink } from "./peer_link.js";
import { UplinkSocket } from "./uplink_socket.js";

const CHANNEL = "motion";
/** Newer motion is worth more than what waits: packets are dropped while this many bytes do. */
const MAX_BUFFERED_BYTES = 8 * 128;

export class Publisher {
  #link;
  /** @type {UplinkSocket|null} */
  #socket = null;
  /** @type {RTCDataChannel|null} */
  #channel = null;
  /** @type {RTCRtpSender|null} */
  #sender = null;
  /** @type {MediaStreamTrack|null} */
  #voice = null;
  /** @type {string|null} */
  #sessionId = null;
  /** @type {string|null} */
  #whepUrl = null;
  #isWanted = false;
  /** @type {Connection|null} */
  connection = null;
  packetsSent = 0;
  bytesSent = 0;
  /** Not sent: nothing was open, or too much waited. */
  packetsDropped = 0;

  /** @param {Gateway} gateway */
  constructor(gateway) {
    this.gateway = gateway;
    this.#link = new PeerLink({
      endpoint: () => this.#endpoint,
      authorization: () => this.gateway.authorization,
      prepare: (peer) => this.#prepare(peer),
      onState: (state) => this.#follow(state),
    });
  }

  /** What carries motion now. @returns {"channel"|"socket"|null} */
  get carrier() {
    if (this.#channel?.readyState === "open") return "channel";
    return this.#socket?.isOpen ? "socket" : null;
  }

  get state() {
    return this.#link.state;
  }

  get peer() {
    return this.#link.peer;
  }

  /**
   * The session to send to; null: none, nothing is sent.
   * @param {string|null} sessionId
   * @param {string|null} whepUrl where it is watched; WHIP of the session is beside it
   */
  setSession(sessionId, whepUrl) {
    this.#whepUrl = whepUrl;
    if (sessionId === this.#sessionId) return;
    this.#stop();
    this.#sessionId = sessionId;
    this.#startIfWanted();
  }

  /** Connect, when there is a session. */
  start() {
    this.#isWanted = true;
    this.#startIfWanted();
  }

  /** Connect anew: the network has changed. */
  restart() {
    this.#link.restart();
  }

  close() {
    this.#isWanted = false;
    this.#stop();
  }

  /**
   * Send this track's sound from now on.
   * @param {MediaStreamTrack|null} track null: no voice
   */
  async setVoice(track) {
    this.#voice = track;
    await this.#sender?.replaceTrack(track).catch(() => {}); // the connection has just ended; the next one takes it
  }

  /**
   * Send a packet now or never.
   * @param {Uint8Array<ArrayBuffer>} packet
   */
  sendMotion(packet) {
    const [channel, socket] = [this.#channel, this.#socket];
    if (channel?.readyState === "open" && channel.bufferedAmount < MAX_BUFFERED_BYTES) channel.send(packet);
    else if (channel?.readyState !== "open" && socket?.isOpen && socket.bufferedBytes < MAX_BUFFERED_BYTES) {
      socket.send(packet);
    } else {
      this.packetsDropped++;
      return;
    }
    this.packetsSent++;
    this.bytesSent += packet.byteLength;
  }

  get #endpoint() {
    // A room's WHIP knows the participant by its token. The session's own one is beside its WHEP.
    return this.connection?.whip_url ?? /** @type {string} */ (this.#whepUrl).replace("/v1/whep/", "/v1/whip/");
  }

  #startIfWanted() {
    if (!this.#isWanted || this.#sessionId === null || this.#whepUrl === null) return;
    if (this.#link.state !== "idle") return;
    this.#link.iceServers = this.connection?.ice_servers ?? this.#link.iceServers;
    this.#openSocket();
    this.#link.start();
  }

  #stop() {
    this.#link.stop();
    this.#closeSocket();
    this.#channel = this.#sender = null;
  }

  /** @param {RTCPeerConnection} peer */
  #prepare(peer) {
    this.#sender = peer.addTransceiver(this.#voice ?? "audio", { direction: "sendonly" }).sender;
    const channel = peer.createDataChannel(CHANNEL, { ordered: false, maxRetransmits: 0 });
    channel.onopen = () => {
      if (this.#channel === channel) this.#closeSocket();
    };
    this.#channel = channel;
  }

  /** @param {LinkState} state */
  #follow(state) {
    if (state === "reconnecting" || state === "failed") this.#openSocket();
  }

  #openSocket() {
    if (this.#sessionId !== null) this.#socket ??= new UplinkSocket(this.gateway, this.#sessionId);
  }

  #closeSocket() {
    this.#socket?.close();
    this.#socket = null;
  }
}
