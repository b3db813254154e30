// @ts-check
/** Finds out that a microphone gives no sound although it is on. Pure. */

/** A microphone that is unplugged, muted by a switch or by the system gives nothing for longer than speakers pause. */
export const SILENT_MS = 5000;
/** Less than one step of 16 bits. A quiet room is louder, even after noise suppression; a muted device is not. */
export const SILENT_BELOW = 2e-5;

export class SilenceWatch {
  /** @type {number|null} */
  #silentSinceMs = null;
  #wasTold = false;

  /**
   * @param {number} peak the largest amplitude since the last call, 0..1
   * @param {number} nowMs
   * @returns {boolean} true once for each silence
   */
  push(peak, nowMs) {
    if (peak >= SILENT_BELOW) {
      this.reset();
      return false;
    }
    this.#silentSinceMs ??= nowMs;
    if (this.#wasTold || nowMs - this.#silentSinceMs < SILENT_MS) return false;
    this.#wasTold = true;
    return true;
  }

  /** Begin again: the microphone was muted, or is another one. */
  reset() {
    this.#silentSinceMs = null;
    this.#wasTold = false;
  }
}
