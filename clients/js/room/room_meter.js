// @ts-check
/**
 * Reads the statistics of a room's connections once a second, and judges their quality.
 * @import { LocalParticipant } from "./local_participant.js"
 * @import { Participant } from "./participant.js"
 * @import { RemoteParticipant } from "./remote_participant.js"
 * @import { RoomReceiver } from "../network/room_receiver.js"
 * @import { ParticipantStats, Reading, RoomStats } from "../media/statistics.js"
 */

import { participantStats, qualityOf, readReport } from "../media/statistics.js";

const INTERVAL_MS = 1000;
/** Rates are measured over this many intervals: short enough to follow a change, long enough not to flicker. */
const WINDOW = 3;

/** @typedef {{receiver: Reading|null, sender: Reading|null, atMs: number, packets: number, bytes: number}} Moment */

/**
 * @typedef {{local: () => LocalParticipant|null, remote: () => Map<string, RemoteParticipant>,
 *   onQuality: (participant: Participant) => void}} MeterOptions
 */

export class RoomMeter {
  #receiver;
  #options;
  /** Oldest first. @type {Moment[]} */
  #moments = [];
  #timer;

  /**
   * @param {RoomReceiver} receiver
   * @param {MeterOptions} options
   */
  constructor(receiver, options) {
    this.#receiver = receiver;
    this.#options = options;
    this.#timer = setInterval(() => void this.#tick(), INTERVAL_MS);
  }

  close() {
    clearInterval(this.#timer);
  }

  async read() {
    const now = await this.#look();
    return this.#compare(this.#moments[0] ?? now, now);
  }

  async #tick() {
    const now = await this.#look();
    this.#moments.push(now);
    if (this.#moments.length > WINDOW + 1) this.#moments.shift();
    if (this.#moments.length > WINDOW) this.#judge(this.#compare(this.#moments[0], now), now);
  }

  /** @returns {Promise<Moment>} */
  async #look() {
    const publisher = this.#options.local()?.publisher;
    const [received, sent] = await Promise.all([this.#receiver.peer?.getStats(), publisher?.peer?.getStats()]);
    const atMs = performance.timeOrigin + performance.now();
    return {
      receiver: received === undefined ? null : readReport(received, atMs),
      sender: sent === undefined ? null : readReport(sent, atMs),
      atMs,
      packets: publisher?.packetsSent ?? 0,
      bytes: publisher?.bytesSent ?? 0,
    };
  }

  /**
   * @param {Moment} before
   * @param {Moment} now
   * @returns {RoomStats}
   */
  #compare(before, now) {
    /** @type {Record<string, ParticipantStats>} */
    const participants = {};
    for (const { id, slot } of this.#options.remote().values()) {
      if (slot === null || now.receiver === null || before.receiver === null) continue;
      participants[id] = participantStats(before.receiver, now.receiver, slot.videoMid, slot.audioMid);
    }
    const seconds = (now.atMs - before.atMs) / 1000;
    const rate = (/** @type {number} */ amount) => (seconds > 0 ? Math.max(0, amount) / seconds : 0);
    // The peer connection's bytes hold voice and motion with their headers; the WebSocket's motion is not among them.
    const isByPeer = this.#options.local()?.publisher.carrier === "channel";
    const bytes = isByPeer
      ? (now.sender?.bytesSent ?? 0) - (before.sender?.bytesSent ?? 0)
      : now.bytes - before.bytes;
    return {
      participants,
      local: {
        fps: rate(now.packets - before.packets),
        uplinkKbitS: rate(8 * bytes) / 1000,
        rttMs: now.sender?.roundTripMs ?? now.receiver?.roundTripMs ?? null,
      },
      transport: now.receiver?.transport ?? now.sender?.transport ?? null,
    };
  }

  /**
   * @param {RoomStats} stats
   * @param {Moment} now
   */
  #judge(stats, now) {
    for (const participant of this.#options.remote().values()) {
      const one = stats.participants[participant.id];
      const roundTripMs = now.receiver?.roundTripMs ?? null;
      this.#tell(participant, one === undefined ? "unknown" : qualityOf({ ...one, roundTripMs }));
    }
    const local = this.#options.local();
    if (local === null) return;
    const isLost = local.publisher.state === "reconnecting" && local.publisher.carrier === null;
    const packetLoss = now.sender?.lossOnTheWay ?? null;
    this.#tell(local, isLost ? "lost" : qualityOf({ packetLoss, roundTripMs: stats.local.rttMs }));
  }

  /**
   * @param {Participant} participant
   * @param {Participant["connectionQuality"]} quality
   */
  #tell(participant, quality) {
    if (participant.connectionQuality === quality) return;
    participant.connectionQuality = quality;
    this.#options.onQuality(participant);
  }
}
