// @ts-check
/**
 * What is received and sent, from getStats: counters at two moments become rates. Pure.
 *
 * Times of playout are those of the speaker's clock (estimatedPlayoutTimestamp, which comes from the sender reports);
 * the service's reports name the time of capture.
 */

/** Seconds from 1900, where NTP begins, to 1970, in milliseconds. */
const NTP_OFFSET_MS = 2_208_988_800_000;
/** A latency outside of this comes from clocks that do not agree. */
const LONGEST_LATENCY_MS = 10_000;

/**
 * Counters of one picture or voice. playoutMs: the capture time of what is played now, by the speaker's clock.
 * @typedef {{bytes: number, packets: number, lost: number, frames: number, frozenS: number, level: number|null,
 *   playoutMs: number|null}} Counters
 */

/**
 * Counters of a connection by mid.
 * @typedef {{atMs: number, byMid: Map<string, Counters>, roundTripMs: number|null,
 *   transport: "udp"|"tcp"|"relay"|null, bytesSent: number, lossOnTheWay: number|null}} Reading
 */

/**
 * What is received of one participant. latencyMs: from its camera to this screen, as far as the clocks agree.
 * avOffsetMs: voice ahead of lips. Null: not known.
 * @typedef {{fps: number|null, kbitS: number|null, latencyMs: number|null, voiceLevel: number|null,
 *   avOffsetMs: number|null, packetLoss: number|null, frozenS: number}} ParticipantStats
 */

/**
 * local: motion packets a second, and everything that is sent.
 * @typedef {{participants: Record<string, ParticipantStats>,
 *   local: {fps: number, uplinkKbitS: number, rttMs: number|null},
 *   transport: "udp"|"tcp"|"relay"|null}} RoomStats
 */

/**
 * @param {RTCStatsReport} report
 * @param {number} atMs Unix milliseconds
 * @returns {Reading}
 */
export function readReport(report, atMs) {
  /** @type {Map<string, Counters>} */
  const byMid = new Map();
  let bytesSent = 0;
  /** @type {string|undefined} */
  let pairId;
  /** @type {number|null} */
  let lossOnTheWay = null;
  report.forEach((entry) => {
    if (entry.type === "inbound-rtp" && entry.mid !== undefined) byMid.set(entry.mid, countersOf(entry, atMs));
    if (entry.type === "remote-inbound-rtp") lossOnTheWay = entry.fractionLost ?? lossOnTheWay;
    if (entry.type === "transport") {
      bytesSent += entry.bytesSent ?? 0;
      pairId = entry.selectedCandidatePairId ?? pairId;
    }
  });
  // Firefox has no transport entry.
  report.forEach((entry) => {
    const isChosen = entry.type === "candidate-pair" && entry.nominated && entry.state === "succeeded";
    if (pairId === undefined && isChosen) [pairId, bytesSent] = [entry.id, entry.bytesSent ?? 0];
  });
  const pair = pairId === undefined ? undefined : report.get(pairId);
  const local = pair && report.get(pair.localCandidateId);
  const roundTripMs = pair?.currentRoundTripTime === undefined ? null : 1000 * pair.currentRoundTripTime;
  return { atMs, byMid, roundTripMs, transport: transportOf(local), bytesSent, lossOnTheWay };
}

/**
 * @param {any} entry inbound-rtp
 * @param {number} atMs
 * @returns {Counters}
 */
function countersOf(entry, atMs) {
  const played = entry.estimatedPlayoutTimestamp;
  // Chromium counts from 1900, as NTP does.
  const playoutMs = played === undefined || played <= 0 ? null : played > atMs * 1.5 ? played - NTP_OFFSET_MS : played;
  return {
    bytes: (entry.bytesReceived ?? 0) + (entry.headerBytesReceived ?? 0),
    packets: entry.packetsReceived ?? 0,
    lost: entry.packetsLost ?? 0,
    frames: entry.framesDecoded ?? 0,
    frozenS: entry.totalFreezesDuration ?? 0,
    level: entry.audioLevel ?? null,
    playoutMs,
  };
}

/** @param {{candidateType?: string, protocol?: string}|undefined} local */
function transportOf(local) {
  if (local === undefined) return null;
  if (local.candidateType === "relay") return "relay";
  return local.protocol === "tcp" ? "tcp" : "udp";
}

/**
 * @param {Reading} before
 * @param {Reading} now
 * @param {string|null} videoMid
 * @param {string|null} audioMid
 * @returns {ParticipantStats}
 */
export function participantStats(before, now, videoMid, audioMid) {
  const [video, earlier] = [now.byMid.get(videoMid ?? ""), before.byMid.get(videoMid ?? "")];
  const [audio, earlierAudio] = [now.byMid.get(audioMid ?? ""), before.byMid.get(audioMid ?? "")];
  const seconds = (now.atMs - before.atMs) / 1000;
  const rate = (/** @type {number} */ amount) => (seconds > 0 ? amount / seconds : null);
  const bytes = since(video, earlier, "bytes") + since(audio, earlierAudio, "bytes");
  const lost = since(video, earlier, "lost") + since(audio, earlierAudio, "lost");
  const expected = lost + since(video, earlier, "packets") + since(audio, earlierAudio, "packets");
  const [seen, heard] = [video?.playoutMs ?? null, audio?.playoutMs ?? null];
  const latencyMs = seen === null ? null : now.atMs - seen;
  const bits = rate(8 * bytes);
  return {
    fps: video === undefined ? null : rate(since(video, earlier, "frames")),
    kbitS: bits === null ? null : bits / 1000,
    latencyMs: latencyMs !== null && latencyMs >= 0 && latencyMs < LONGEST_LATENCY_MS ? latencyMs : null,
    voiceLevel: audio?.level ?? null,
    avOffsetMs: seen === null || heard === null ? null : heard - seen,
    // A late packet first counts as lost and then as received, so the difference can be negative.
    packetLoss: expected > 0 ? Math.max(0, lost / expected) : null,
    frozenS: since(video, earlier, "frozenS"),
  };
}

/**
 * @param {Counters|undefined} now
 * @param {Counters|undefined} before
 * @param {"bytes"|"packets"|"lost"|"frames"|"frozenS"} name
 */
function since(now, before, name) {
  return (now?.[name] ?? 0) - (before?.[name] ?? 0);
}

/**
 * A connection's quality in a word. Loss is what hurts a voice; freezes are what hurts a picture.
 * @param {{packetLoss: number|null, frozenS?: number, kbitS?: number|null, roundTripMs: number|null}} measured
 * @returns {"excellent"|"good"|"poor"|"lost"|"unknown"}
 */
export function qualityOf({ packetLoss, frozenS = 0, kbitS, roundTripMs }) {
  if (kbitS === 0) return "lost";
  if (packetLoss === null && roundTripMs === null) return "unknown";
  const loss = packetLoss ?? 0;
  const rttMs = roundTripMs ?? 0;
  if (loss > 0.1 || frozenS > 1 || rttMs > 600) return "poor";
  return loss > 0.02 || frozenS > 0.3 || rttMs > 250 ? "good" : "excellent";
}
