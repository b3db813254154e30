// @ts-check
/**
 * A viewer of one session (WHEP) that keeps itself connected.
 *
 * One `WhepClient` watches one endpoint from `start()` to `stop()`. Each try is a `PeerAttempt` of the SDK, with its own
 * peer connection and its own WHEP session. When a try ends, its session is deleted on the server, and `planRetry` says
 * whether and when the next one starts.
 */

import { backoffMs } from "./client/network/backoff.js";
import { MienError } from "./client/network/gateway.js";
import { PeerAttempt } from "./client/network/peer_attempt.js";
import { offerH264 } from "./client/network/sdp.js";

/** Longest time from the answer to a connected peer; the server then frees a session without DTLS as well. */
const CONNECT_TIMEOUT_MS = 10_000;
/** ICE often recovers from "disconnected" by itself. */
const DISCONNECTED_GRACE_MS = 2000;
/** Longer than a takeover by another generator (3 s), during which the peer connection stays up. */
const STALL_TIMEOUT_MS = 10_000;
const WATCH_INTERVAL_MS = 1000;

const BACKOFF = { firstMs: 500, limitMs: 15_000 };
const RETRY_AFTER_LIMIT_MS = 60_000;
const WAITING_RETRY_MS = 2000;
/** What a viewer's session URL answers after an operator has ended the viewer (problem `viewer-ended`). */
const VIEWER_ENDED = 410;

/**
 * - `connecting`: the first try is running
 * - `connected`: ICE and DTLS are up; media flows or will flow soon
 * - `waiting`: no generator holds the session at the moment (409); tries again
 * - `busy`: the server is full (429, 503); tries again
 * - `reconnecting`: the connection or the server was lost; tries again
 * - `ended`: the session no longer exists (404, 410)
 * - `removed`: an operator ended this viewer; no further try
 * - `denied`: the token was not accepted (401, 403)
 * - `failed`: the server refuses this browser's offer; another try would not help
 * @typedef {"idle"|"connecting"|"connected"|"waiting"|"busy"|"reconnecting"|"ended"|"removed"|"denied"
 *   |"failed"} WhepState
 */

/**
 * What follows a failed try: the state to show, and the delay before the next try (null: no further try).
 * @param {unknown} error
 * @param {number} failures consecutive failures before this one
 * @param {() => number} [random] uniform in [0, 1)
 * @returns {{state: WhepState, delayMs: number|null}}
 */
export function planRetry(error, failures, random = Math.random) {
  const status = error instanceof MienError ? error.status : 0;
  const askedMs = error instanceof MienError ? error.retryAfterMs : null;
  // Never earlier than the server asked; up to a fifth later.
  const asked = askedMs === null ? null : Math.min(askedMs, RETRY_AFTER_LIMIT_MS) * (1 + 0.2 * random());
  switch (status) {
    case 401:
    case 403:
      return { state: "denied", delayMs: null };
    case 404:
    case 410:
      return { state: "ended", delayMs: null };
    case 409:
      return { state: "waiting", delayMs: asked ?? WAITING_RETRY_MS };
    case 429:
    case 503:
      return { state: "busy", delayMs: asked ?? backoffMs(failures + 1, BACKOFF, random) };
    case 400:
    case 405:
    case 406:
    case 415:
    case 422:
      return { state: "failed", delayMs: null };
    default:
      return { state: "reconnecting", delayMs: asked ?? backoffMs(failures, BACKOFF, random) };
  }
}

/** What is known of one try, and what it waits for. */
class Try {
  /** @type {Set<number>} */
  #timers = new Set();
  bytesReceived = 0;
  lastMediaAtMs = performance.now();

  /** @param {PeerAttempt} attempt */
  constructor(attempt) {
    this.attempt = attempt;
  }

  get isOver() {
    return this.attempt.isOver;
  }

  /** @param {() => void} action @param {number} delayMs */
  after(action, delayMs) {
    const timer = window.setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, delayMs);
    this.#timers.add(timer);
  }

  /** @returns {Promise<number|null>} what the server says about the session's end */
  end() {
    this.#timers.forEach((timer) => window.clearTimeout(timer));
    return this.attempt.close();
  }
}

/**
 * Events: `state` (detail: the new state) and `stream` (detail: the MediaStream to show), the latter once per try.
 */
export class WhepClient extends EventTarget {
  /** @type {WhepState} */
  #state = "idle";
  #detail = "";
  #failures = 0;
  /** @type {Try|null} */
  #try = null;
  /** @type {number|undefined} */
  #retryTimer;
  /** @type {number|null} */
  #retryAtMs = null;
  #url;
  #token;
  #iceServers;
  #onOnline = () => this.retryNow();

  /**
   * @param {Object} options
   * @param {string} options.url the WHEP endpoint, absolute or relative to the page
   * @param {string|null} [options.token] sent as a bearer token to the endpoint and its session
   * @param {RTCIceServer[]} [options.iceServers]
   */
  constructor({ url, token = null, iceServers = [] }) {
    super();
    this.#url = new URL(url, location.href).href;
    this.#token = token;
    this.#iceServers = iceServers;
  }

  get state() {
    return this.#state;
  }

  /** The server's explanation of a refusal; may be empty. */
  get detail() {
    return this.#detail;
  }

  /** When the next try starts, on the clock of `performance.now()`; null when none is planned. */
  get retryAtMs() {
    return this.#retryAtMs;
  }

  /** The current try's peer connection. @returns {RTCPeerConnection|null} */
  get peer() {
    return this.#try?.attempt.peer ?? null;
  }

  /** Connects, and stays connected until `stop()`. */
  start() {
    if (this.#state !== "idle") return;
    window.addEventListener("online", this.#onOnline);
    this.#setState("connecting");
    void this.#connect();
  }

  /** Starts the next try at once instead of waiting for its time. */
  retryNow() {
    if (this.#retryAtMs !== null) void this.#connect();
  }

  /** Deletes the WHEP session (also while the page unloads) and closes the connection. */
  stop() {
    window.removeEventListener("online", this.#onOnline);
    this.#cancelRetry();
    this.#endTry();
    this.#setState("idle");
  }

  async #connect() {
    this.#cancelRetry();
    this.#endTry();
    const attempt = new PeerAttempt({ iceServers: this.#iceServers }, this.#authorization());
    const one = (this.#try = new Try(attempt));
    const transceiver = attempt.peer.addTransceiver("video", { direction: "recvonly" });
    offerH264(transceiver);
    // A conversation needs the smallest buffer that the network's jitter allows; the browser enlarges it as needed.
    if ("jitterBufferTarget" in transceiver.receiver) transceiver.receiver.jitterBufferTarget = 0;
    attempt.peer.addEventListener("track", ({ track, streams }) => {
      if (one.isOver) return;
      this.dispatchEvent(new CustomEvent("stream", { detail: streams[0] ?? new MediaStream([track]) }));
    });
    this.#watch(one, transceiver.receiver);
    try {
      const linked = await attempt.negotiate(this.#url);
      if (one.isOver) return;
      // They take effect when candidates are gathered again, at the latest with the next try.
      if (linked.length > 0) this.#iceServers = linked;
      one.after(() => {
        const { connectionState } = attempt.peer;
        if (connectionState === "new" || connectionState === "connecting") {
          this.#fail(one, new Error("The connection timed out."));
        }
      }, CONNECT_TIMEOUT_MS);
    } catch (error) {
      this.#fail(one, error);
    }
  }

  /**
   * Ends the try when the connection breaks, or when media stops.
   * @param {Try} one
   * @param {RTCRtpReceiver} receiver
   */
  #watch(one, receiver) {
    const { peer } = one.attempt;
    const lost = (/** @type {string} */ reason) => this.#fail(one, new Error(reason));
    peer.addEventListener("connectionstatechange", () => {
      if (one.isOver) return;
      if (peer.connectionState === "connected") {
        one.lastMediaAtMs = performance.now();
        // This is the only event when the server closes the connection; ICE would take seconds to notice.
        receiver.transport?.addEventListener("statechange", () => {
          if (receiver.transport?.state === "closed") lost("The server closed the connection.");
        });
        this.#setState("connected");
        one.after(checkMedia, WATCH_INTERVAL_MS);
      } else if (peer.connectionState === "failed") {
        lost("The connection failed.");
      } else if (peer.connectionState === "disconnected") {
        one.after(() => {
          if (peer.connectionState !== "connected") lost("The connection was lost.");
        }, DISCONNECTED_GRACE_MS);
      }
    });
    let checking = false;
    const checkMedia = async () => {
      if (checking || one.isOver) return;
      checking = true;
      const report = await receiver.getStats();
      checking = false;
      if (one.isOver) return;
      report.forEach((entry) => {
        if (entry.type !== "inbound-rtp" || entry.bytesReceived <= one.bytesReceived) return;
        one.bytesReceived = entry.bytesReceived;
        one.lastMediaAtMs = performance.now();
        this.#failures = 0;
      });
      if (performance.now() - one.lastMediaAtMs > STALL_TIMEOUT_MS) lost("The picture stopped.");
      else one.after(checkMedia, WATCH_INTERVAL_MS);
    };
  }

  /** @param {Try} one @param {unknown} error */
  #fail(one, error) {
    if (one.isOver) return;
    this.#endTry();
    const { state, delayMs } = planRetry(error, this.#failures);
    this.#failures += 1;
    this.#detail = error instanceof MienError ? error.detail : "";
    if (delayMs === null) {
      window.removeEventListener("online", this.#onOnline);
    } else {
      this.#retryAtMs = performance.now() + delayMs;
      this.#retryTimer = window.setTimeout(() => void this.#connect(), delayMs);
    }
    this.#setState(state);
  }

  #endTry() {
    const one = this.#try;
    this.#try = null;
    one?.end().then((status) => status === VIEWER_ENDED && this.#onRemoved());
  }

  /** The connection was not lost: an operator ended it. Ends the tries that follow a lost connection. */
  #onRemoved() {
    if (this.#state === "idle") return;
    window.removeEventListener("online", this.#onOnline);
    this.#cancelRetry();
    this.#endTry();
    this.#setState("removed");
  }

  #cancelRetry() {
    window.clearTimeout(this.#retryTimer);
    this.#retryAtMs = null;
  }

  /** @returns {Record<string, string>} */
  #authorization() {
    return this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
  }

  /** @param {WhepState} state */
  #setState(state) {
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}
