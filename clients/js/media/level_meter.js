// @ts-check
/** Measures how loud a microphone is, ten times a second. */

const INTERVAL_MS = 100;

/** Full scale of the meter: -60 dBFS is 0, -10 dBFS is 1. Speech lies between. */
const [QUIET_DB, LOUD_DB] = [-60, -10];

/**
 * The place of a loudness on a meter. Pure.
 * @param {number} rms root mean square of the samples, 0..1
 * @returns {number} 0..1
 */
export function meterLevel(rms) {
  const db = 20 * Math.log10(Math.max(rms, 1e-6));
  return Math.min(1, Math.max(0, (db - QUIET_DB) / (LOUD_DB - QUIET_DB)));
}

export class LevelMeter {
  #context = new AudioContext();
  #analyser = this.#context.createAnalyser();
  #samples = new Float32Array(this.#analyser.fftSize);
  /** @type {MediaStreamAudioSourceNode|null} */
  #source = null;
  #timer;

  /** @param {(level: number, peak: number) => void} onLevel level: 0..1 on a meter; peak: amplitude, 0..1 */
  constructor(onLevel) {
    this.#timer = setInterval(() => {
      // A context that the browser has not started (no click yet) measures nothing, and says so.
      if (this.#context.state !== "running" || this.#source === null) return;
      const { rms, peak } = this.#measure();
      onLevel(meterLevel(rms), peak);
    }, INTERVAL_MS);
  }

  /** @param {MediaStreamTrack|null} track */
  follow(track) {
    this.#source?.disconnect();
    this.#source = track && this.#context.createMediaStreamSource(new MediaStream([track]));
    this.#source?.connect(this.#analyser);
    if (track !== null) void this.#context.resume().catch(() => {});
  }

  close() {
    clearInterval(this.#timer);
    void this.#context.close().catch(() => {});
  }

  #measure() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    let [sum, peak] = [0, 0];
    for (const sample of this.#samples) {
      sum += sample * sample;
      peak = Math.max(peak, Math.abs(sample));
    }
    return { rms: Math.sqrt(sum / this.#samples.length), peak };
  }
}
