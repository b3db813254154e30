// @ts-check
/**
 * The page's side of the encoder: brings a camera's pictures into the worker and hands out packets.
 *
 * There are three ways in, tried in this order:
 * 1. Chromium: a MediaStreamTrackProcessor here, its readable side transferred. It goes on while the tab is hidden.
 * 2. Safari: the track transferred, the processor in the worker. It goes on, too.
 * 3. Firefox and older browsers: requestVideoFrameCallback and createImageBitmap. While the tab is hidden nothing
 *    comes, and the worker's timer sends default motion.
 *
 * While no face is shown, the voice of a microphone's track opens the mouth (`followVoice`); reactions come by `react`.
 * @import { CaptureState, Report, Request } from "./messages.js"
 */

import { demandKnown } from "../motion/reactions.js";
import { VoiceTap } from "./voice_tap.js";

/**
 * keypoints: those of the avatar. seed: of its default motion, 0 or more. onPacket: 128 bytes, about 30 times a second,
 * also while no face is seen. onState: once a second. onError: something failed, and what it was.
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

/** Motion from a camera's track. Packets are numbered from 0; they go on while tracks come and go. */
export class MotionCapture {
  #options;
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "mien encoder" });
  /** Ends what concerns the present track. */
  #leaving = new AbortController();
  #readsTracks = false;
  /** @type {VoiceTap|null} */
  #voice = null;
  /** Whether the worker looks at a picture that was sent from here. */
  #isBusy = false;
  /** Pictures not sent because the worker was busy. Only the third way counts: a processor drops frames by itself. */
  skipped = 0;

  /** @param {CaptureOptions} options */
  constructor(options) {
    this.#options = options;
  }

  /**
   * Begin. Resolves when the encoder is loaded and the track's pictures are on their way.
   * @param {MediaStreamTrack|null} track see `follow`
   * @returns {Promise<void>}
   * @throws {CaptureError} the encoder cannot be loaded; its text says why
   */
  async start(track) {
    try {
      this.#readsTracks = await this.#load();
      await this.follow(track);
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  /**
   * Show this camera from now on.
   * @param {MediaStreamTrack|null} track stays the caller's, who stops it; null for none: the face moves by itself
   * @returns {Promise<void>}
   */
  async follow(track) {
    this.#leaving.abort();
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    if (track === null) {
      this.#post({ type: "muted", muted: true });
      return;
    }
    this.#followMute(track, signal);
    if ("MediaStreamTrackProcessor" in globalThis) {
      const { readable } = new MediaStreamTrackProcessor({ track });
      this.#post({ type: "frames", readable }, [readable]);
    } else if (!(this.#readsTracks && this.#transfer(track))) {
      await this.#watch(track, signal);
    }
  }

  /**
   * Let this microphone's voice open the mouth from now on, while no face is shown. Call it again when the track
   * changes, and with null when the microphone is off. Only the loudness of the voice reaches the worker.
   * @param {MediaStreamTrack|null} track stays the caller's
   * @returns {Promise<void>}
   * @throws {import("./voice_tap.js").VoiceTapError} the mouth stays shut
   */
  async followVoice(track) {
    this.#voice?.close();
    this.#voice = null;
    if (track === null) return;
    const { port1, port2 } = new MessageChannel();
    this.#post({ type: "voice", port: port1 }, [port1]);
    this.#voice = new VoiceTap();
    await this.#voice.open(track, port2);
  }

  /**
   * Let the face react, with the next packet.
   * @param {string} name of FACE_REACTIONS
   * @throws {import("../motion/reactions.js").UnknownReaction}
   */
  react(name) {
    demandKnown(name);
    this.#post({ type: "reaction", name });
  }

  /** End, and free the worker. No packet comes afterwards. */
  stop() {
    this.#voice?.close();
    this.#leaving.abort();
    this.#worker.terminate();
  }

  /** @returns {Promise<boolean>} whether the worker reads tracks */
  #load() {
    return new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }) => {
        if (data.type === "error") return reject(errorOf(data));
        this.#worker.onmessage = (event) => this.#receive(event.data);
        resolve(data.readsTracks);
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

  /**
   * @param {MediaStreamTrack} track
   * @param {AbortSignal} signal
   */
  #followMute(track, signal) {
    const tell = () => this.#post({ type: "muted", muted: track.muted || track.readyState === "ended" });
    for (const event of ["mute", "unmute", "ended"]) {
      track.addEventListener(event, tell, { signal });
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

  /**
   * @param {MediaStreamTrack} track
   * @param {AbortSignal} signal
   */
  async #watch(track, signal) {
    const video = document.createElement("video");
    video.muted = video.playsInline = true;
    video.srcObject = new MediaStream([track]);
    signal.addEventListener("abort", () => (video.srcObject = null));
    await video.play();
    const look = (/** @type {number} */ nowMs, /** @type {VideoFrameCallbackMetadata} */ metadata) => {
      if (signal.aborted) return;
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
    if (this.#isBusy) {
      this.skipped++;
      return;
    }
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
