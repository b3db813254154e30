// @ts-check
/**
 * Turns the camera's time stamps into Unix milliseconds.
 *
 * Time stamps advance evenly but begin anywhere. A picture arrives some milliseconds after its capture, more when the
 * machine is busy. So the smallest delay between time stamp and arrival is the best estimate of the clocks' offset. It
 * is taken over the last ten seconds, because the two clocks drift apart. Pure.
 */

/** The offset is the smallest of this and the previous window of this length. */
const WINDOW_MS = 5000;

export class CaptureClock {
  #windowAtMs = -Infinity;
  #smallestMs = Infinity;
  #previousMs = Infinity;
  #lastMs = -Infinity;

  /**
   * When a picture was captured, in Unix milliseconds. Never before the previous picture.
   * @param {number} stampMs the picture's own time stamp
   * @param {number} nowMs when it arrived
   * @returns {number}
   */
  captureMs(stampMs, nowMs) {
    const offsetMs = nowMs - stampMs;
    // Another camera, or a machine that slept: its stamps have another beginning.
    const jumped = Math.abs(offsetMs - Math.min(this.#smallestMs, this.#previousMs)) > WINDOW_MS;
    if (jumped) this.#smallestMs = this.#previousMs = Infinity;
    if (jumped || nowMs - this.#windowAtMs >= WINDOW_MS) {
      this.#windowAtMs = nowMs;
      this.#previousMs = this.#smallestMs;
      this.#smallestMs = Infinity;
    }
    this.#smallestMs = Math.min(this.#smallestMs, offsetMs);
    const captured = stampMs + Math.min(this.#smallestMs, this.#previousMs);
    this.#lastMs = Math.max(this.#lastMs, Math.min(captured, nowMs));
    return this.#lastMs;
  }
}
