// @ts-check
/**
 * A WHIP or WHEP connection that keeps itself connected, from `start()` to `stop()`.
 *
 * Each try is a `PeerAttempt`. When it ends, another one follows after a pause, because only the room's events say that
 * a participant has left for good. Refusals that another try cannot change end it.
 */

import { backoffMs } from "./backoff.js";
import { MienError } from "./gateway.js";
import { PeerAttempt } from "./peer_attempt.js";
import { idOf } from "./sdp.js";

/** Longest time from the answer to a connected peer. */
const CONNECT_TIMEOUT_MS = 8000;
/** ICE often recovers from "disconnected" by itself. */
const DISCONNECTED_GRACE_MS = 2000;
/** A connection that has lasted this long has not failed for the reasons of earlier ones. */
const STABLE_MS = 5000;
const BACKOFF = { firstMs: 500, limitMs: 15_000 };
const RETRY_AFTER_LIMIT_MS = 60_000;
/** Another offer of this browser would be refused, too. */
const FINAL_STATUS = new Set([400, 405, 406, 413, 415, 422]);

/**
 * - `idle`: not started
 * - `connecting`: an offer is on its way; `answered`: the server has a session
 * - `connected`
 * - `reconnecting`: another try follows after a pause
 * - `failed`: the server refuses this browser's offer
 * @typedef {"idle"|"connecting"|"answered"|"connected"|"reconnecting"|"failed"} LinkState
 */

/**
 * How long to wait after a failed try. Pure.
 * @param {unknown} error
 * @param {number} failures consecutive failures before this one
 * @param {() => number} [random]
 * @returns {number|null} milliseconds; null: no further try
 */
export function retryDelayMs(error, failures, random = Math.random) {
  if (!(error instanceof MienError)) return backoffMs(failures, BACKOFF, random);
  if (FINAL_STATUS.has(error.status)) return null;
  // Never earlier than the server asked; up to a fifth later.
  if (error.retryAfterMs !== null) return Math.min(error.retryAfterMs, RETRY_AFTER_LIMIT_MS) * (1 + 0.2 * random());
  return backoffMs(failures, BACKOFF, random);
}

/**
 * endpoint: where to send the offer. authorization: of each request. prepare: adds tracks and channels to a new peer
 * connection. onState: after each change.
 * @typedef {object} LinkOptions
 * @property {() => string} endpoint
 * @property {() => Record<string, string>} authorization
 * @property {(peer: RTCPeerConnection) => void} prepare
 * @property {(state: LinkState) => void} [onState]
 */

export class PeerLink {
  #options;
  /** @type {PeerAttempt|null} */
  #attempt = null;
  /** @type {LinkState} */
  #state = "idle";
  #failures = 0;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;
  /** Of the next try. @type {RTCIceServer[]} */
  iceServers = [];

  /** @param {LinkOptions} options */
  constructor(options) {
    this.#options = options;
  }

  get state() {
    return this.#state;
  }

  /** The present peer connection. */
  get peer() {
    return this.#attempt?.peer ?? null;
  }

  /** The id of the present session on the server; null before the answer. */
  get id() {
    const location = this.#attempt?.location ?? null;
    return location === null ? null : idOf(location);
  }

  start() {
    if (this.#state === "idle") void this.#connect();
  }

  /** Connect anew, at once: the network or the endpoint has changed. */
  restart() {
    if (this.#state === "idle") return;
    this.#failures = 0;
    void this.#connect();
  }

  stop() {
    this.#drop();
    this.#set("idle");
  }

  async #connect() {
    this.#drop();
    this.#set("connecting");
    const { endpoint, authorization, prepare } = this.#options;
    const attempt = new PeerAttempt({ iceServers: this.iceServers }, authorization());
    this.#attempt = attempt;
    try {
      prepare(attempt.peer);
      this.#watch(attempt);
      const linked = await attempt.negotiate(endpoint());
      if (attempt.isOver) return;
      if (linked.length > 0) this.iceServers = linked;
      if (this.#state !== "connecting") return; // it is connected
      this.#set("answered");
      this.#after(CONNECT_TIMEOUT_MS, () => this.#fail(attempt, new Error("the connection timed out")));
    } catch (error) {
      this.#fail(attempt, error);
    }
  }

  /** @param {PeerAttempt} attempt */
  #watch(attempt) {
    const { peer } = attempt;
    peer.addEventListener("connectionstatechange", () => {
      if (attempt.isOver) return;
      switch (peer.connectionState) {
        case "connected":
          return this.#connected(attempt);
        case "failed":
          return this.#fail(attempt, new Error("the connection failed"));
        case "disconnected":
          setTimeout(() => {
            if (peer.connectionState !== "connected") this.#fail(attempt, new Error("the connection was lost"));
          }, DISCONNECTED_GRACE_MS);
      }
    });
  }

  /** @param {PeerAttempt} attempt */
  #connected(attempt) {
    clearTimeout(this.#timer);
    this.#after(STABLE_MS, () => (this.#failures = 0));
    // This is the only event when the server closes the connection; ICE would take seconds to notice.
    const transport = transportOf(attempt.peer);
    transport?.addEventListener("statechange", () => {
      if (transport.state === "closed") this.#fail(attempt, new Error("the server closed the connection"));
    });
    this.#set("connected");
  }

  /**
   * @param {PeerAttempt} attempt
   * @param {unknown} error
   */
  #fail(attempt, error) {
    if (attempt.isOver || this.#attempt !== attempt) return;
    this.#drop();
    const delayMs = retryDelayMs(error, this.#failures++);
    if (delayMs === null) {
      console.error("the service refuses this connection", error);
      return this.#set("failed");
    }
    this.#after(delayMs, () => void this.#connect());
    this.#set("reconnecting");
  }

  #drop() {
    clearTimeout(this.#timer);
    void this.#attempt?.close();
    this.#attempt = null;
  }

  /**
   * @param {number} delayMs
   * @param {() => void} action
   */
  #after(delayMs, action) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, delayMs);
  }

  /** @param {LinkState} state */
  #set(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#options.onState?.(state);
  }
}

/** The one DTLS transport of a bundled connection. @param {RTCPeerConnection} peer */
function transportOf(peer) {
  const [first] = peer.getTransceivers();
  return first?.sender.transport ?? first?.receiver.transport ?? peer.sctp?.transport ?? null;
}
