// @ts-check
/**
 * The page's side of the encoder: brings a camera's pictures into the worker and hands out packets.
 *
 * There are three ways in, tried in this order:
 * 1. Chromium: a MediaStreamTrackProcessor here, its readable side transferred. It goes on while the tab is hidden.
 * 2. Safari: the track transferred, the processor in the worker. It goes on, too.
 * 3. Firefox and older browsers: requestVideoFrameCallback and createImageBitmap. While the tab is hidden nothing comes, and
 *    the worker's timer sends default motion.
 * @import { CaptureState, Report, Request } from "./messages.js"
 */

/**
 * keypoints: those of the avatar. seed: of its default motion, 0 or more. onPacket: 128 bytes, about 30 times a second, also
 * while no face is seen. onState: once a second. onError: something failed, and what it was.
 * @typedef {object} CaptureOptions
 * @property {Float32Array} keypoints
 * @property {number} [seed]
 * @property {(packet: Uint8Array<ArrayBuffer>) => void} onPacket
 * @property {(state: CaptureState) => void} [onState]
 * @property {(error: CaptureError) => void} [onError]
 */

/** An error that the worker reports; `cause` is the name of the original one, such as "EncoderFileTampered". */
export class CaptureError extends Error {
  name = "CaptureError";
}

/** Motion from a camera's track. */
export class MotionCapture {
  #options;
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "mien encoder" });
  #stopping = new AbortController();
  /** Whether the worker looks at a picture of ours: the next one waits, and newest wins. */
  #isBusy = false;

  /** @param {CaptureOptions} options */
  constructor(options) {
    this.#options = options;
  }

  /**
   * Begin. Resolves when the encoder is loaded and pictures are on their way.
   * @param {MediaStreamTrack} track stays the caller's: `stop` does not stop it
   * @returns {Promise<void>}
   * @throws {CaptureError} the encoder cannot be loaded; its text says why
   */
  async start(track) {
    const { readsTracks } = await this.#load();
    this.#followMute(track);
    if ("MediaStreamTrackProcessor" in globalThis) {
      const { readable } = new MediaStreamTrackProcessor({ track });
      this.#post({ type: "frames", readable }, [readable]);
    } else if (!(readsTracks && this.#transfer(track))) {
      await this.#watch(track);
    }
  }

  /** End, and free the worker. No packet comes afterwards. */
  stop() {
    this.#stopping.abort();
    this.#worker.terminate();
  }

  /** @returns {Promise<{readsTracks: boolean}>} */
  #load() {
    return new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }) => {
        if (data.type === "ready") resolve(data);
        else if (data.type === "error") reject(errorOf(data));
        if (data.type !== "ready") this.#receive(data);
      };
      this.#worker.onerror = (event) => reject(new CaptureError(`the worker failed: ${event.message}`));
      this.#post({ type: "start", keypoints: this.#options.keypoints, seed: this.#options.seed ?? 0 });
    });
  }

  /** @param {Report} message */
  #receive(message) {
    switch (message.type) {
      case "packet":
        return this.#options.onPacket(message.bytes);
      case "state":
        return this.#options.onState?.(message.state);
      case "taken":
        this.#isBusy = false;
        return;
      case "error":
        return this.#options.onError?.(errorOf(message));
    }
  }

  /** @param {MediaStreamTrack} track */
  #followMute(track) {
    const tell = () => this.#post({ type: "muted", muted: track.muted || track.readyState === "ended" });
    for (const event of ["mute", "unmute", "ended"]) {
      track.addEventListener(event, tell, { signal: this.#stopping.signal });
    }
    tell();
  }

  /**
   * @param {MediaStreamTrack} track
   * @returns {boolean} whether this browser transfers tracks
   */
  #transfer(track) {
    const clone = track.clone(); // a transferred track is gone here
    try {
      this.#post({ type: "track", track: clone }, [/** @type {any} */ (clone)]);
      return true;
    } catch {
      clone.stop();
      return false;
    }
  }

  /** @param {MediaStreamTrack} track */
  async #watch(track) {
    const video = document.createElement("video");
    video.muted = video.playsInline = true;
    video.srcObject = new MediaStream([track]);
    this.#stopping.signal.addEventListener("abort", () => (video.srcObject = null));
    await video.play();
    const look = (/** @type {number} */ nowMs, /** @type {VideoFrameCallbackMetadata} */ metadata) => {
      if (this.#stopping.signal.aborted) return;
      video.requestVideoFrameCallback(look);
      this.#send(video, performance.timeOrigin + (metadata.captureTime ?? nowMs));
    };
    video.requestVideoFrameCallback(look);
  }

  /**
   * @param {HTMLVideoElement} video
   * @param {number} captureMs
   */
  async #send(video, captureMs) {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      const bitmap = await createImageBitmap(video);
      this.#post({ type: "picture", bitmap, captureMs }, [bitmap]);
    } catch {
      this.#isBusy = false; // the video has no picture now
    }
  }

  /**
   * @param {Request} message
   * @param {Transferable[]} [transfer]
   */
  #post(message, transfer = []) {
    this.#worker.postMessage(message, transfer);
  }
}

/** @param {{name: string, message: string}} reported */
function errorOf({ name, message }) {
  return new CaptureError(message, { cause: name });
}
