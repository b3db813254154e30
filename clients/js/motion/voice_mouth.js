// @ts-check
/**
 * The mouth of a participant without a camera: how far a voice opens it.
 *
 * Pure: the caller passes the time. The Python side, which says more, is `mien_encoder/voice_mouth.py`; vectors in
 * tests/shared/wire/vectors hold both to the same numbers. `VoiceBands` runs in the audio thread, `VoiceMouth` beside
 * the encoder.
 */

/** Loudness is measured so often. */
export const HOP_S = 0.02;
/** Edges of the three bands in hertz. */
const BANDS_HZ = [100, 700, 2000, 6000];
/** Samples that one measurement looks at: 21 ms at 48 kHz. A power of two. */
const WINDOW_SAMPLES = 1024;
/** What silence measures, decibels below full scale. */
const SILENCE_DB = -100;

// Fitted by tools/voice_mouth.
const WEIGHTS = [-0.017, 0.451, 0.142];
const OPEN = 0.48;

const RANGE_DB = 60;
const USUAL_RISES_S = 0.1;
const USUAL_FALLS_DB_S = 1;
const USUAL_AT_FIRST_DB = -30;
const USUAL_AT_LEAST_DB = -50;
const NOISE_AT_FIRST_DB = -70;
const NOISE_RISES_DB_S = 4;
const NOISE_FALL = 0.3;
const GATE_DB = [8, 14];
const OPENS_S = 0.015;
const SHUTS_S = 0.045;
const DEAF_AFTER_S = 0.1;

/** Measures the loudness of a voice in three bands, every HOP_S. */
export class VoiceBands {
  #hop;
  #window = Float64Array.from({ length: WINDOW_SAMPLES }, (_, i) => Math.sin((Math.PI * i) / WINDOW_SAMPLES) ** 2);
  #edges;
  #scale = 2 / (WINDOW_SAMPLES * this.#window.reduce((sum, value) => sum + value * value, 0));
  /** The newest samples, as a ring. */
  #recent = new Float32Array(WINDOW_SAMPLES);
  #at = 0;
  #untilNext;
  #real = new Float64Array(WINDOW_SAMPLES);
  #imaginary = new Float64Array(WINDOW_SAMPLES);

  /** @param {number} rateHz of the samples, 16,000 or more */
  constructor(rateHz) {
    if (rateHz < 16_000) throw new RangeError(`a voice needs 16000 samples a second or more, not ${rateHz}`);
    this.#hop = this.#untilNext = Math.round(rateHz * HOP_S);
    this.#edges = BANDS_HZ.map((edge) => Math.ceil((edge * WINDOW_SAMPLES) / rateHz));
  }

  /**
   * The measurements that these samples complete.
   * @param {Float32Array} samples mono, -1 to 1
   * @returns {number[][]} decibels below full scale of each band
   */
  push(samples) {
    const measured = [];
    for (const sample of samples) {
      this.#recent[this.#at] = sample;
      this.#at = (this.#at + 1) % WINDOW_SAMPLES;
      if (--this.#untilNext === 0) {
        this.#untilNext = this.#hop;
        measured.push(this.#measure());
      }
    }
    return measured;
  }

  #measure() {
    for (let i = 0; i < WINDOW_SAMPLES; i++) {
      this.#real[i] = this.#recent[(this.#at + i) % WINDOW_SAMPLES] * this.#window[i];
    }
    this.#imaginary.fill(0);
    transform(this.#real, this.#imaginary);
    return this.#edges.slice(1).map((high, band) => {
      let power = 0;
      for (let i = this.#edges[band]; i < high; i++) power += this.#real[i] ** 2 + this.#imaginary[i] ** 2;
      return decibels(power * this.#scale);
    });
  }
}

/** How far a voice opens the mouth. Fed with the measurements of VoiceBands. */
export class VoiceMouth {
  #usualDb = USUAL_AT_FIRST_DB;
  #noiseDb = NOISE_AT_FIRST_DB;
  #opening = 0;
  #heardS = -Infinity;

  /**
   * Take one measurement, which is made every HOP_S.
   * @param {ArrayLike<number>} bandsDb
   * @param {number} timeS by the clock of the packets
   */
  hear(bandsDb, timeS) {
    const target = this.#target(Array.from(bandsDb));
    const opening = this.opening(timeS);
    this.#opening = opening + (target - opening) * share(HOP_S, target > opening ? OPENS_S : SHUTS_S);
    this.#heardS = Math.max(timeS, this.#heardS);
  }

  /**
   * How far the mouth is open, 0 to 1. Without sound it shuts.
   * @param {number} timeS
   */
  opening(timeS) {
    const deafS = timeS - this.#heardS - DEAF_AFTER_S;
    return deafS <= 0 ? this.#opening : this.#opening * Math.exp(-deafS / SHUTS_S);
  }

  /** @param {number[]} bandsDb */
  #target(bandsDb) {
    const levelDb = decibels(bandsDb.reduce((sum, band) => sum + 10 ** (band / 10), 0));
    this.#learn(levelDb);
    const sum = bandsDb.reduce(
      (total, band, i) => total + WEIGHTS[i] * Math.min(Math.max((band - this.#usualDb) / RANGE_DB + 1, 0), 1.5),
      0,
    );
    const [low, high] = GATE_DB;
    return limited((levelDb - this.#noiseDb - low) / (high - low)) * limited(sum / OPEN);
  }

  /** @param {number} levelDb */
  #learn(levelDb) {
    this.#usualDb = Math.max(this.#usualDb - USUAL_FALLS_DB_S * HOP_S, USUAL_AT_LEAST_DB);
    if (levelDb > this.#usualDb) this.#usualDb += (levelDb - this.#usualDb) * share(HOP_S, USUAL_RISES_S);
    if (levelDb < this.#noiseDb) this.#noiseDb += (levelDb - this.#noiseDb) * NOISE_FALL;
    else this.#noiseDb += NOISE_RISES_DB_S * HOP_S;
  }
}

/** @param {number} value */
function limited(value) {
  return Math.min(Math.max(value, 0), 1);
}

/**
 * The share of a distance that is gone after `seconds`, if two thirds of it take `constantS`.
 * @param {number} seconds
 * @param {number} constantS
 */
function share(seconds, constantS) {
  return 1 - Math.exp(-seconds / constantS);
}

/**
 * Decibels below full scale of a mean square.
 * @param {number} power
 */
function decibels(power) {
  return Math.max(SILENCE_DB, 10 * Math.log10(Math.max(power, 1e-12)));
}

/**
 * The discrete Fourier transform, in place (radix 2, decimation in time). The length is a power of two.
 * @param {Float64Array} real
 * @param {Float64Array} imaginary
 */
function transform(real, imaginary) {
  const length = real.length;
  for (let i = 1, j = 0; i < length; i++) {
    let bit = length >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j |= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let size = 2; size <= length; size *= 2) {
    for (let k = 0; k < size / 2; k++) {
      const [cos, sin] = [Math.cos((2 * Math.PI * k) / size), -Math.sin((2 * Math.PI * k) / size)];
      for (let even = k; even < length; even += size) {
        const odd = even + size / 2;
        const x = real[odd] * cos - imaginary[odd] * sin;
        const y = real[odd] * sin + imaginary[odd] * cos;
        real[odd] = real[even] - x;
        imaginary[odd] = imaginary[even] - y;
        real[even] += x;
        imaginary[even] += y;
      }
    }
  }
}
