// @ts-check
/**
 * A WHEP viewer (draft-ietf-wish-whep) that keeps itself connected.
 *
 * One `WhepClient` watches one endpoint from `start()` to `stop()`. Each try is an `Attempt` with its own peer
 * connection and its own WHEP session. When a try ends, its session is deleted on the server, and `planRetry` says
 * whether and when the next one starts.
 */

/** Host candidates arrive within milliseconds; slower ones (STUN, TURN) are trickled after the POST. */
const GATHERING_WAIT_MS = 250;
/** Candidates found within this time of each other share a PATCH. */
const TRICKLE_BATCH_MS = 50;
const REQUEST_TIMEOUT_MS = 10_000;
/** Longest time from the answer to a connected peer; the server then frees a session without DTLS as well. */
const CONNECT_TIMEOUT_MS = 10_000;
/** ICE often recovers from "disconnected" by itself. */
const DISCONNECTED_GRACE_MS = 2000;
/** Longer than a takeover by another generator (3 s), during which the peer connection stays up. */
const STALL_TIMEOUT_MS = 10_000;
const WATCH_INTERVAL_MS = 1000;

const BACKOFF_FIRST_MS = 500;
const BACKOFF_LIMIT_MS = 15_000;
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

/** A WHEP request whose answer was not 2xx. */
export class WhepError extends Error {
  /**
   * @param {number} status
   * @param {string} detail the detail or title of a problem document; empty if there is none
   * @param {number|null} retryAfterMs
   */
  constructor(status, detail, retryAfterMs) {
    super(detail || `WHEP endpoint answered ${status}`);
    this.name = "WhepError";
    this.status = status;
    this.detail = detail;
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * Exponential backoff with equal jitter, so that the viewers of a restarted server do not all reconnect at once.
 * @param {number} failures consecutive failures before this one
 * @param {() => number} [random] uniform in [0, 1)
 * @returns {number} milliseconds
 */
export function backoffMs(failures, random = Math.random) {
  const ceiling = Math.min(BACKOFF_LIMIT_MS, BACKOFF_FIRST_MS * 2 ** failures);
  return ceiling / 2 + (ceiling / 2) * random();
}

/**
 * What follows a failed try: the state to show, and the delay before the next try (null: no further try).
 * @param {unknown} error
 * @param {number} failures consecutive failures before this one
 * @param {() => number} [random] uniform in [0, 1)
 * @returns {{state: WhepState, delayMs: number|null}}
 */
export function planRetry(error, failures, random = Math.random) {
  const status = error instanceof WhepError ? error.status : 0;
  const askedMs = error instanceof WhepError ? error.retryAfterMs : null;
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
      return { state: "busy", delayMs: asked ?? backoffMs(failures + 1, random) };
    case 400:
    case 405:
    case 406:
    case 415:
    case 422:
      return { state: "failed", delayMs: null };
    default:
      return { state: "reconnecting", delayMs: asked ?? backoffMs(failures, random) };
  }
}

/**
 * @param {string|null} value a Retry-After header: seconds or an HTTP date
 * @param {number} nowMs Unix time
 * @returns {number|null} milliseconds from now, at least zero; null when absent or unreadable
 */
export function parseRetryAfterMs(value, nowMs) {
  if (!value) return null;
  if (/^\s*\d+\s*$/.test(value)) return Number(value) * 1000;
  const dateMs = Date.parse(value);
  return Number.isNaN(dateMs) ? null : Math.max(0, dateMs - nowMs);
}

/**
 * The ICE servers of a Link header (RFC 9725, section 4.6).
 * @param {string|null} header e.g. `<turn:t.example?transport=udp>; rel="ice-server"; username="u"; credential="c"`
 * @returns {RTCIceServer[]}
 */
export function parseIceServerLinks(header) {
  if (!header) return [];
  const servers = [];
  for (const [, url, parameters] of header.matchAll(/<([^>]*)>((?:[^,"]|"(?:[^"\\]|\\.)*")*)/g)) {
    /** @type {Record<string, string>} */
    const fields = {};
    for (const [, name, quoted, bare] of parameters.matchAll(/;\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))/g)) {
      fields[name.toLowerCase()] = quoted === undefined ? bare : quoted.replace(/\\(.)/g, "$1");
    }
    if (fields.rel !== "ice-server") continue;
    servers.push(
      fields.username ? { urls: url, username: fields.username, credential: fields.credential ?? "" } : { urls: url },
    );
  }
  return servers;
}

/**
 * An SDP fragment with candidates (RFC 8840) for the one media section of `offerSdp`.
 * @param {string} offerSdp
 * @param {string[]} candidates `candidate:...` lines without the `a=`
 * @param {boolean} complete whether these are the last
 */
export function candidateFragment(offerSdp, candidates, complete) {
  const lines = offerSdp.split(/\r?\n/);
  const first = (/** @type {string} */ prefix) => lines.find((line) => line.startsWith(prefix));
  return [
    first("a=ice-ufrag:"),
    first("a=ice-pwd:"),
    first("m="),
    first("a=mid:"),
    ...candidates.map((candidate) => `a=${candidate}`),
    complete ? "a=end-of-candidates" : undefined,
  ]
    .filter((line) => line !== undefined)
    .join("\r\n")
    .concat("\r\n");
}

/**
 * Whether candidates may be declared complete. A browser hides host addresses behind `.local` names (mDNS). A server
 * that cannot resolve these names learns the real addresses only from the browser's own connectivity checks. If it was
 * told that no more candidates will come, it gives up before these checks arrive.
 * @param {string[]} candidates
 */
export function areAllAddresses(candidates) {
  return candidates.length > 0 && !candidates.some((candidate) => / \S+\.local /.test(candidate));
}

/** One try: a peer connection and, once the server has answered, its WHEP session. */
class Attempt {
  /** @type {string|null} */
  sessionUrl = null;
  /** @type {string|null} */
  etag = null;
  /** True once the try has ended: nothing that it still awaits may have an effect. */
  over = false;
  /** @type {Set<number>} */
  timers = new Set();
  bytesReceived = 0;
  lastMediaAtMs = performance.now();

  /** @param {RTCConfiguration} configuration */
  constructor(configuration) {
    this.peer = new RTCPeerConnection(configuration);
  }

  /** @param {() => void} action @param {number} delayMs */
  after(action, delayMs) {
    const timer = window.setTimeout(() => {
      this.timers.delete(timer);
      action();
    }, delayMs);
    this.timers.add(timer);
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
  /** @type {Attempt|null} */
  #attempt = null;
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
    return this.#attempt?.peer ?? null;
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
    this.#endAttempt();
    this.#setState("idle");
  }

  async #connect() {
    this.#cancelRetry();
    this.#endAttempt();
    const attempt = new Attempt({ iceServers: this.#iceServers, bundlePolicy: "max-bundle" });
    this.#attempt = attempt;
    try {
      await this.#negotiate(attempt);
    } catch (error) {
      this.#fail(attempt, error);
    }
  }

  /** @param {Attempt} attempt */
  async #negotiate(attempt) {
    const { peer } = attempt;
    const transceiver = peer.addTransceiver("video", { direction: "recvonly" });
    preferH264(transceiver);
    // A conversation needs the smallest buffer that the network's jitter allows; the browser enlarges it as needed.
    if ("jitterBufferTarget" in transceiver.receiver) transceiver.receiver.jitterBufferTarget = 0;
    peer.addEventListener("track", ({ track, streams }) => {
      if (attempt.over) return;
      this.dispatchEvent(new CustomEvent("stream", { detail: streams[0] ?? new MediaStream([track]) }));
    });

    /** @type {string[]} */
    const candidates = [];
    let gathered = false;
    let flush = () => {};
    peer.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate?.candidate) candidates.push(candidate.candidate);
      else gathered = true;
      flush();
    });
    await peer.setLocalDescription();
    await gatheringComplete(peer, GATHERING_WAIT_MS);
    if (attempt.over) return;

    const offer = /** @type {RTCSessionDescription} */ (peer.localDescription).sdp;
    const complete = peer.iceGatheringState === "complete";
    const response = await fetch(this.#url, {
      method: "POST",
      headers: { "Content-Type": "application/sdp", Accept: "application/sdp", ...this.#authorization() },
      // The offer has one media section, so a line at its end belongs to that section.
      body: complete && areAllAddresses(candidates) ? `${offer}a=end-of-candidates\r\n` : offer,
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
    if (!response.ok) throw await refusal(response);
    const location = response.headers.get("Location");
    // After a redirect (307), response.url is the endpoint that created the session.
    attempt.sessionUrl = location === null ? null : new URL(location, response.url || this.#url).href;
    attempt.etag = response.headers.get("ETag");
    const answer = await response.text();
    if (attempt.over) {
      // The client was stopped while the server was answering. Only this code knows the new session.
      this.#deleteSession(attempt);
      return;
    }

    // They take effect when candidates are gathered again, at the latest with the next try.
    const linked = parseIceServerLinks(response.headers.get("Link"));
    if (linked.length > 0) this.#iceServers = linked;
    this.#watch(attempt, transceiver.receiver);
    await peer.setRemoteDescription({ type: "answer", sdp: answer });
    if (complete || attempt.over) return;

    // The candidate lines in an SDP lack the "ufrag" that the same candidates have in events.
    const sent = new Set(candidates.filter((candidate) => offer.includes(candidate.replace(/ ufrag .*/, ""))));
    let scheduled = false;
    flush = () => {
      if (scheduled || attempt.over || attempt.sessionUrl === null) return;
      scheduled = true;
      attempt.after(() => {
        scheduled = false;
        const fresh = candidates.filter((candidate) => !sent.has(candidate));
        fresh.forEach((candidate) => sent.add(candidate));
        const last = gathered && areAllAddresses(candidates);
        if (fresh.length > 0 || last) void this.#trickle(attempt, candidateFragment(offer, fresh, last));
      }, TRICKLE_BATCH_MS);
    };
    if (gathered || candidates.length > sent.size) flush();
  }

  /** @param {Attempt} attempt @param {string} fragment */
  async #trickle(attempt, fragment) {
    if (attempt.over || attempt.sessionUrl === null) return;
    const headers = { "Content-Type": "application/trickle-ice-sdpfrag", ...this.#authorization() };
    try {
      await fetch(attempt.sessionUrl, {
        method: "PATCH",
        headers: attempt.etag === null ? headers : { ...headers, "If-Match": attempt.etag },
        body: fragment,
        signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      });
    } catch {
      // The candidates of the offer may be enough; if not, the connect timeout ends this try.
    }
  }

  /**
   * Ends the try when it does not connect, when the connection breaks, or when media stops.
   * @param {Attempt} attempt
   * @param {RTCRtpReceiver} receiver
   */
  #watch(attempt, receiver) {
    const { peer } = attempt;
    const lost = (/** @type {string} */ reason) => this.#fail(attempt, new Error(reason));
    attempt.after(() => {
      if (peer.connectionState === "new" || peer.connectionState === "connecting") lost("The connection timed out.");
    }, CONNECT_TIMEOUT_MS);
    peer.addEventListener("connectionstatechange", () => {
      if (attempt.over) return;
      if (peer.connectionState === "connected") {
        attempt.lastMediaAtMs = performance.now();
        // This is the only event when the server closes the connection; ICE would take seconds to notice.
        receiver.transport?.addEventListener("statechange", () => {
          if (receiver.transport?.state === "closed") lost("The server closed the connection.");
        });
        this.#setState("connected");
        attempt.after(checkMedia, WATCH_INTERVAL_MS);
      } else if (peer.connectionState === "failed") {
        lost("The connection failed.");
      } else if (peer.connectionState === "disconnected") {
        attempt.after(() => {
          if (peer.connectionState !== "connected") lost("The connection was lost.");
        }, DISCONNECTED_GRACE_MS);
      }
    });
    let checking = false;
    const checkMedia = async () => {
      if (checking || attempt.over) return;
      checking = true;
      const report = await receiver.getStats();
      checking = false;
      if (attempt.over) return;
      report.forEach((entry) => {
        if (entry.type !== "inbound-rtp" || entry.bytesReceived <= attempt.bytesReceived) return;
        attempt.bytesReceived = entry.bytesReceived;
        attempt.lastMediaAtMs = performance.now();
        this.#failures = 0;
      });
      if (performance.now() - attempt.lastMediaAtMs > STALL_TIMEOUT_MS) lost("The picture stopped.");
      else attempt.after(checkMedia, WATCH_INTERVAL_MS);
    };
  }

  /** @param {Attempt} attempt @param {unknown} error */
  #fail(attempt, error) {
    if (attempt.over) return;
    this.#endAttempt();
    const { state, delayMs } = planRetry(error, this.#failures);
    this.#failures += 1;
    this.#detail = error instanceof WhepError ? error.detail : "";
    if (delayMs === null) {
      window.removeEventListener("online", this.#onOnline);
    } else {
      this.#retryAtMs = performance.now() + delayMs;
      this.#retryTimer = window.setTimeout(() => void this.#connect(), delayMs);
    }
    this.#setState(state);
  }

  #endAttempt() {
    const attempt = this.#attempt;
    if (attempt === null) return;
    this.#attempt = null;
    attempt.over = true;
    attempt.timers.forEach((timer) => window.clearTimeout(timer));
    attempt.peer.close();
    this.#deleteSession(attempt);
  }

  /** @param {Attempt} attempt */
  #deleteSession(attempt) {
    if (attempt.sessionUrl === null) return;
    // keepalive lets the request outlive the page. The server frees an abandoned session anyway.
    fetch(attempt.sessionUrl, { method: "DELETE", headers: this.#authorization(), keepalive: true })
      .then(({ status }) => status === VIEWER_ENDED && this.#onRemoved())
      .catch(() => {});
    attempt.sessionUrl = null;
  }

  /** The connection was not lost: an operator ended it. Ends the tries that follow a lost connection. */
  #onRemoved() {
    if (this.#state === "idle") return;
    window.removeEventListener("online", this.#onOnline);
    this.#cancelRetry();
    this.#endAttempt();
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

/**
 * Mien sends H.264 constrained baseline only; an answerer that picks the offer's first codec must find it
 * first.
 * @param {RTCRtpTransceiver} transceiver
 */
function preferH264(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities("video")?.codecs ?? [];
  /** @param {{mimeType: string, sdpFmtpLine?: string}} codec */
  const rank = ({ mimeType, sdpFmtpLine = "" }) => {
    if (mimeType.toLowerCase() !== "video/h264") return 2;
    return /profile-level-id=42[ce]0/i.test(sdpFmtpLine) && sdpFmtpLine.includes("packetization-mode=1") ? 0 : 1;
  };
  transceiver.setCodecPreferences(codecs.sort((left, right) => rank(left) - rank(right)));
}

/** @param {RTCPeerConnection} peer @param {number} limitMs @returns {Promise<void>} */
function gatheringComplete(peer, limitMs) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    window.setTimeout(resolve, limitMs);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState === "complete") resolve();
    });
  });
}

/** @param {Response} response @returns {Promise<WhepError>} */
async function refusal(response) {
  let detail = "";
  if (response.headers.get("Content-Type")?.includes("json")) {
    const problem = await response.json().catch(() => ({}));
    detail = String(problem.detail ?? problem.title ?? "");
  }
  return new WhepError(response.status, detail, parseRetryAfterMs(response.headers.get("Retry-After"), Date.now()));
}
