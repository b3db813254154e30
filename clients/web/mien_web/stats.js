// @ts-check
/** Measures what a viewer sees: turns getStats counters and presented frames into rates over a short window. */

/** @typedef {import("./api.js").ServerStats} ServerStats */

/** Rates are measured over this time: short enough to follow a change, long enough not to flicker. */
const RATE_WINDOW_MS = 2000;
/** Loss is rare and bursty, so it is averaged over longer. */
const LOSS_WINDOW_MS = 10_000;
/** After this long without a frame the rate is shown as zero, not as the last rate. */
const FROZEN_AFTER_MS = 1500;

/**
 * The four parts of the latency estimate, in milliseconds; null if not measured.
 * @typedef {Object} LatencyParts
 * @property {number|null} serverMs from the gateway's receipt of a motion packet to its encoded frame, the
 *   server's median
 * @property {number|null} networkMs half the round trip to the server
 * @property {number|null} bufferMs mean time in the jitter buffer
 * @property {number|null} decodeMs mean decoding time
 */

/**
 * @typedef {Object} PlaybackStats
 * @property {number|null} width pixels
 * @property {number|null} height pixels
 * @property {number|null} fps frames presented a second
 * @property {number|null} downlinkBps RTP with headers, bits a second
 * @property {number|null} uplinkBps the speaker's motion packets, bits a second
 * @property {number|null} latencyMs sum of the known latency parts
 * @property {boolean} latencyComplete whether all parts are known; if not, latencyMs is a lower bound
 * @property {LatencyParts} latencyParts
 * @property {number|null} lossRatio packets lost of packets expected, 0 to 1
 * @property {string|null} codec e.g. "H.264"
 * @property {string|null} codecProfile e.g. "Constrained baseline 3.1"
 * @property {number} framesPresented since playback started
 * @property {number} framesDecoded since playback started
 * @property {number} framesDropped since playback started
 */

/**
 * Counters at one moment.
 * @typedef {Object} Snapshot
 * @property {number} atMs
 * @property {number} framesPresented
 * @property {number} presentedAtMs when the newest frame was presented
 * @property {number} framesDecoded
 * @property {number} framesDropped
 * @property {number} bytesReceived
 * @property {number} packetsReceived
 * @property {number} packetsLost
 * @property {number} jitterBufferDelayS
 * @property {number} jitterBufferEmitted
 * @property {number} decodeTimeS
 * @property {number|null} roundTripS
 * @property {string|null} codecMime
 * @property {string|null} codecParameters
 */

/** Measures the video of one peer connection as one video element presents it. */
export class StatsReader {
  /** @type {Snapshot[]} */
  #history = [];
  #framesPresented = 0;
  #presentedAtMs = 0;
  #callback = 0;
  #peer;
  #video;

  /** @param {RTCPeerConnection} peer @param {HTMLVideoElement} video */
  constructor(peer, video) {
    this.#peer = peer;
    this.#video = video;
    let last = 0;
    /** @type {VideoFrameRequestCallback} */
    const onFrame = (nowMs, metadata) => {
      // The element's count includes frames whose callback was skipped; it starts again with a new stream.
      this.#framesPresented += last > 0 && metadata.presentedFrames > last ? metadata.presentedFrames - last : 1;
      last = metadata.presentedFrames;
      this.#presentedAtMs = nowMs;
      this.#callback = video.requestVideoFrameCallback(onFrame);
    };
    this.#callback = video.requestVideoFrameCallback(onFrame);
  }

  get peer() {
    return this.#peer;
  }

  get framesPresented() {
    return this.#framesPresented;
  }

  /** Forgets the history. Call it after a time in which no frames were presented (a hidden tab). */
  reset() {
    this.#history = [];
  }

  close() {
    this.#video.cancelVideoFrameCallback(this.#callback);
  }

  /**
   * Reads the counters and compares them with earlier ones. Call it about once a second.
   * @param {ServerStats|null} server the server's figures for the same session
   * @returns {Promise<PlaybackStats>}
   */
  async read(server) {
    const report = await this.#peer.getStats();
    const snapshot = takeSnapshot(report, performance.now(), this.#framesPresented, this.#presentedAtMs);
    this.#history.push(snapshot);
    while (snapshot.atMs - this.#history[0].atMs > LOSS_WINDOW_MS + 500) this.#history.shift();
    return {
      width: this.#video.videoWidth || null,
      height: this.#video.videoHeight || null,
      ...compare(this.#history, server),
    };
  }
}

/**
 * @param {RTCStatsReport} report
 * @param {number} atMs
 * @param {number} framesPresented
 * @param {number} presentedAtMs
 * @returns {Snapshot}
 */
export function takeSnapshot(report, atMs, framesPresented, presentedAtMs) {
  /** @type {Record<string, any>} */
  let inbound = {};
  /** @type {string|undefined} */
  let pairId;
  report.forEach((entry) => {
    if (entry.type === "inbound-rtp" && entry.kind === "video") inbound = entry;
    if (entry.type === "transport" && entry.selectedCandidatePairId) pairId = entry.selectedCandidatePairId;
  });
  if (pairId === undefined) {
    // Firefox has no transport entry.
    report.forEach((entry) => {
      if (entry.type === "candidate-pair" && entry.nominated && entry.state === "succeeded") pairId = entry.id;
    });
  }
  const pair = pairId === undefined ? undefined : report.get(pairId);
  const codec = inbound.codecId === undefined ? undefined : report.get(inbound.codecId);
  return {
    atMs,
    framesPresented,
    presentedAtMs,
    framesDecoded: inbound.framesDecoded ?? 0,
    framesDropped: inbound.framesDropped ?? 0,
    bytesReceived: (inbound.bytesReceived ?? 0) + (inbound.headerBytesReceived ?? 0),
    packetsReceived: inbound.packetsReceived ?? 0,
    packetsLost: inbound.packetsLost ?? 0,
    jitterBufferDelayS: inbound.jitterBufferDelay ?? 0,
    jitterBufferEmitted: inbound.jitterBufferEmittedCount ?? 0,
    decodeTimeS: inbound.totalDecodeTime ?? 0,
    roundTripS: pair?.currentRoundTripTime ?? null,
    codecMime: codec?.mimeType ?? null,
    codecParameters: codec?.sdpFmtpLine ?? null,
  };
}

/**
 * @param {Snapshot[]} history oldest first, at least one
 * @param {ServerStats|null} server
 * @returns {Omit<PlaybackStats, "width"|"height">}
 */
export function compare(history, server) {
  const now = history[history.length - 1];
  // The newest snapshot that is at least a window old, otherwise the oldest. Timers run late, so 10 % are tolerated.
  const since = history.findLast((past) => now.atMs - past.atMs >= RATE_WINDOW_MS * 0.9) ?? history[0];
  const elapsedS = (now.atMs - since.atMs) / 1000;

  const presented = now.framesPresented - since.framesPresented;
  const presentedS = (now.presentedAtMs - since.presentedAtMs) / 1000;
  const frozen = now.atMs - now.presentedAtMs > FROZEN_AFTER_MS;
  // Measured between the times of two frames: over wall time the count would be off by up to a frame at each end.
  const fps = since.framesPresented === 0 ? null : frozen ? 0 : presentedS > 0 ? presented / presentedS : null;

  const lost = now.packetsLost - history[0].packetsLost;
  const expected = now.packetsReceived - history[0].packetsReceived + lost;

  /** @type {LatencyParts} */
  const latencyParts = {
    serverMs: server?.motion_to_packet_ms_p50 ?? null,
    networkMs: now.roundTripS === null ? null : (now.roundTripS * 1000) / 2,
    bufferMs: mean(
      now.jitterBufferDelayS - since.jitterBufferDelayS,
      now.jitterBufferEmitted - since.jitterBufferEmitted,
    ),
    decodeMs: mean(now.decodeTimeS - since.decodeTimeS, now.framesDecoded - since.framesDecoded),
  };
  const known = Object.values(latencyParts).filter((part) => part !== null);
  return {
    fps,
    downlinkBps: elapsedS > 0 ? ((now.bytesReceived - since.bytesReceived) * 8) / elapsedS : null,
    uplinkBps: server?.uplink_bps ?? null,
    latencyMs: known.length === 0 ? null : known.reduce((sum, part) => sum + part, 0),
    latencyComplete: known.length === Object.keys(latencyParts).length,
    latencyParts,
    // A late packet first counts as lost and then as received, so the difference can be negative.
    lossRatio: expected > 0 ? Math.max(0, lost / expected) : null,
    codec: codecName(now.codecMime),
    codecProfile: h264Profile(now.codecMime, now.codecParameters),
    framesPresented: now.framesPresented,
    framesDecoded: now.framesDecoded,
    framesDropped: now.framesDropped,
  };
}

/** @param {number} totalS @param {number} count @returns {number|null} milliseconds each */
function mean(totalS, count) {
  return count > 0 ? (totalS * 1000) / count : null;
}

/** @param {string|null} mime @returns {string|null} */
function codecName(mime) {
  const name = mime?.split("/")[1] ?? null;
  return name === null ? null : name.toUpperCase() === "H264" ? "H.264" : name;
}

/**
 * The profile and level that profile-level-id names (RFC 6184, section 8.1).
 * @param {string|null} mime
 * @param {string|null} parameters the SDP fmtp line
 * @returns {string|null}
 */
export function h264Profile(mime, parameters) {
  const id = /profile-level-id=([0-9a-f]{6})/i.exec(parameters ?? "")?.[1];
  if (mime?.toLowerCase() !== "video/h264" || id === undefined) return null;
  const profile = parseInt(id.slice(0, 2), 16);
  const constraints = parseInt(id.slice(2, 4), 16);
  const level = parseInt(id.slice(4, 6), 16) / 10;
  const names = /** @type {Record<number, string>} */ ({
    0x42: constraints & 0x40 ? "Constrained baseline" : "Baseline",
    0x4d: "Main",
    0x64: "High",
  });
  return names[profile] === undefined ? null : `${names[profile]} ${level.toFixed(1)}`;
}
