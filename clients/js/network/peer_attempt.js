// @ts-check
/**
 * One try to connect by WHIP (RFC 9725) or WHEP (draft-ietf-wish-whep): an offer, its answer, later candidates, and the
 * end of the session on the server.
 */

import { MienError } from "./gateway.js";
import { areAllAddresses, candidateFragment, parseIceServerLinks } from "./sdp.js";

/** Host candidates arrive within milliseconds; slower ones (STUN, TURN) are trickled after the POST. */
const GATHERING_WAIT_MS = 250;
/** Candidates found within this time of each other share a PATCH. */
const TRICKLE_BATCH_MS = 50;
const REQUEST_TIMEOUT_MS = 10_000;

/** A peer connection and, once the server has answered, its session. */
export class PeerAttempt {
  #authorization;
  /** @type {string[]} */
  #candidates = [];
  /** @type {Set<string>} */
  #sent = new Set();
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;
  #offer = "";
  /** Where its session is on the server. @type {string|null} */
  location = null;
  /** True once the try has ended: nothing that it still awaits may have an effect. */
  isOver = false;

  /**
   * @param {RTCConfiguration} configuration
   * @param {Record<string, string>} authorization
   */
  constructor(configuration, authorization) {
    this.peer = new RTCPeerConnection({ ...configuration, bundlePolicy: "max-bundle" });
    this.#authorization = authorization;
    this.peer.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate?.candidate) this.#candidates.push(candidate.candidate);
      if (this.location !== null) this.#trickleSoon();
    });
  }

  /**
   * Offer what the peer connection has been prepared for, and apply the answer.
   * @param {string} url the endpoint
   * @returns {Promise<RTCIceServer[]>} those that the server names
   * @throws {MienError} the server refuses; a TypeError without network
   */
  async negotiate(url) {
    const { peer } = this;
    await peer.setLocalDescription();
    await gathered(peer);
    if (this.isOver) return [];
    this.#offer = /** @type {RTCSessionDescription} */ (peer.localDescription).sdp;
    // The candidate lines in an SDP lack the "ufrag" that the same candidates have in events.
    this.#sent = new Set(this.#candidates.filter((one) => this.#offer.includes(one.replace(/ ufrag .*/, ""))));
    const response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/sdp", Accept: "application/sdp", ...this.#authorization },
      body: this.#offer,
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
    if (!response.ok) throw await MienError.of(response);
    const location = response.headers.get("Location");
    // After a redirect (307), response.url is the endpoint that created the session.
    this.location = location === null ? null : new URL(location, response.url || url).href;
    const answer = await response.text();
    if (this.isOver) {
      void this.#delete(); // it ended while the server was answering, and only this code knows the session
      return [];
    }
    await peer.setRemoteDescription({ type: "answer", sdp: answer });
    this.#trickleSoon();
    return parseIceServerLinks(response.headers.get("Link"));
  }

  /**
   * End it here and on the server, also while the page unloads.
   * @returns {Promise<number|null>} the status of the server's answer; null if there is none
   */
  async close() {
    if (this.isOver) return null;
    this.isOver = true;
    clearTimeout(this.#timer);
    this.peer.close();
    return this.#delete();
  }

  #trickleSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#trickle(), TRICKLE_BATCH_MS);
  }

  async #trickle() {
    const fresh = this.#candidates.filter((one) => !this.#sent.has(one));
    const isLast = this.peer.iceGatheringState === "complete" && areAllAddresses(this.#candidates);
    if (this.isOver || this.location === null || (fresh.length === 0 && !isLast)) return;
    fresh.forEach((one) => this.#sent.add(one));
    await fetch(this.location, {
      method: "PATCH",
      headers: { "Content-Type": "application/trickle-ice-sdpfrag", ...this.#authorization },
      body: candidateFragment(this.#offer, fresh, isLast),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    }).catch(() => {}); // the candidates of the offer may be enough; if not, the try ends by its timeout
  }

  async #delete() {
    const location = this.location;
    this.location = null;
    if (location === null) return null;
    try {
      // keepalive lets the request outlive the page. The server frees an abandoned session anyway.
      return (await fetch(location, { method: "DELETE", headers: this.#authorization, keepalive: true })).status;
    } catch {
      return null;
    }
  }
}

/**
 * @param {RTCPeerConnection} peer
 * @returns {Promise<void>} when candidates are gathered, or the wait is over
 */
function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    setTimeout(resolve, GATHERING_WAIT_MS);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState === "complete") resolve();
    });
  });
}
