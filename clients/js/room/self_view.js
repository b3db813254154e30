// @ts-check
/**
 * One's own avatar as the server draws it: WHEP of the own session, while an element shows it.
 * @import { Gateway } from "../network/gateway.js"
 */

import { PeerLink } from "../network/peer_link.js";
import { offerH264 } from "../network/sdp.js";

export class SelfView {
  /** @type {Set<HTMLVideoElement>} */
  #elements = new Set();
  /** @type {string|null} */
  #url = null;
  /** @type {MediaStreamTrack|null} */
  #track = null;
  #link;

  /** @param {Gateway} gateway */
  constructor(gateway) {
    this.gateway = gateway;
    this.#link = new PeerLink({
      endpoint: () => /** @type {string} */ (this.#url),
      authorization: () => this.gateway.authorization,
      prepare: (peer) => this.#prepare(peer),
    });
  }

  /** @param {RTCIceServer[]} servers */
  set iceServers(servers) {
    this.#link.iceServers = servers;
  }

  /** @param {string|null} url WHEP of the own session; null: there is none */
  setUrl(url) {
    if (url === this.#url) return;
    this.#link.stop();
    this.#url = url;
    this.#follow();
  }

  /** @param {HTMLVideoElement} element */
  attach(element) {
    element.autoplay = element.muted = element.playsInline = true;
    this.#elements.add(element);
    this.#show(element);
    this.#follow();
  }

  /**
   * @param {HTMLVideoElement} [element]
   * @returns {HTMLVideoElement[]}
   */
  detach(element) {
    const elements = [...this.#elements].filter((one) => element === undefined || one === element);
    for (const one of elements) {
      this.#elements.delete(one);
      one.srcObject = null;
    }
    this.#follow();
    return elements;
  }

  restart() {
    this.#link.restart();
  }

  close() {
    this.#url = null;
    this.#follow();
  }

  #follow() {
    if (this.#url !== null && this.#elements.size > 0) this.#link.start();
    else this.#link.stop();
  }

  /** @param {RTCPeerConnection} peer */
  #prepare(peer) {
    const transceiver = peer.addTransceiver("video", { direction: "recvonly" });
    offerH264(transceiver);
    this.#track = transceiver.receiver.track;
    for (const element of this.#elements) this.#show(element);
  }

  /** @param {HTMLVideoElement} element */
  #show(element) {
    if (this.#track === null) return;
    element.srcObject = new MediaStream([this.#track]);
    element.play().catch(() => {}); // muted pictures play by themselves
  }
}
