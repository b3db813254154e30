// @ts-check
/**
 * The worker in which pictures become packets: frames -> pixels -> crop -> K -> smoothing -> judgement -> packet. A
 * worker's timers and streams go on while the page is hidden. `messages.js` says what goes in and out.
 * @import { Report, Request } from "./messages.js"
 */

import { OutgoingMotion } from "../motion/outgoing.js";
import { pack } from "../motion/packet.js";
import { CaptureClock } from "./capture_clock.js";
import { GridFinder } from "./finder.js";
import { KeypointEncoder } from "./kernel.js";
import { MotionSource } from "./motion_source.js";
import { PixelWriter } from "./pixels.js";
import { FaceTracker } from "./tracker.js";

const TICK_MS = 1000 / 30;
const STATE_MS = 1000;

const nowMs = () => performance.timeOrigin + performance.now();

/**
 * The only way out of this worker.
 * @param {Report} message
 */
function report(message) {
  self.postMessage(message, { transfer: message.type === "packet" ? [message.bytes.buffer] : [] });
}

/** @param {unknown} error */
function reportError(error) {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  report({ type: "error", name, message });
}

/** Everything that `start` makes. */
class Capture {
  #clock = new CaptureClock();
  /** @type {ReadableStreamDefaultReader<VideoFrame>|null} */
  #reader = null;
  #lastError = "";
  #busyMs = 0;
  #looks = 0;
  #writer;

  /**
   * @param {KeypointEncoder} encoder
   * @param {Float32Array} keypoints
   * @param {number} seed
   */
  constructor(encoder, keypoints, seed) {
    this.#writer = new PixelWriter(encoder);
    const tracker = new FaceTracker(encoder, new GridFinder(encoder));
    this.outgoing = new OutgoingMotion(keypoints, seed);
    this.source = new MotionSource(tracker, this.outgoing, (packet) =>
      report({ type: "packet", bytes: pack(packet) }),
    );
    setInterval(() => this.source.tick(nowMs()), TICK_MS);
    setInterval(() => this.#tellState(), STATE_MS);
  }

  /**
   * Read frames until their stream ends or another one begins. The processor behind it keeps the newest frame only.
   * @param {ReadableStream<VideoFrame>} readable
   */
  async read(readable) {
    const reader = readable.getReader();
    this.#reader?.cancel();
    this.#reader = reader;
    for (;;) {
      const { value: frame, done } = await reader.read();
      if (done) break;
      await this.look(frame, this.#clock.captureMs(frame.timestamp / 1000, nowMs()));
    }
    if (this.#reader === reader) this.source.muted = true;
  }

  /**
   * Let the voice open the mouth while no face is shown. When the port brings nothing more, the mouth closes.
   * @param {MessagePort} port
   */
  listen(port) {
    port.onmessage = ({ data }) => this.outgoing.hear(data, nowMs() / 1000);
  }

  /**
   * @param {VideoFrame|ImageBitmap} frame closed at the end
   * @param {number} captureMs
   */
  async look(frame, captureMs) {
    const beganMs = performance.now();
    try {
      await this.#writer.write(frame);
      this.source.see(captureMs);
    } catch (error) {
      // Of this picture; the timer goes on. Usually the next pictures fail for the same reason.
      if (String(error) !== this.#lastError) reportError(error);
      this.#lastError = String(error);
    } finally {
      frame.close();
    }
    this.#busyMs += performance.now() - beganMs;
    this.#looks++;
  }

  #tellState() {
    const { seesFace: face, muted, pictures, packets } = this.source;
    const busyMs = this.#busyMs / Math.max(1, this.#looks);
    report({ type: "state", state: { face, muted, pictures, packets, busyMs } });
    this.#busyMs = this.#looks = 0;
  }
}

/** @type {Capture|null} */
let capture = null;

/** @param {Request} request */
async function handle(request) {
  if (request.type === "start") {
    capture = new Capture(await KeypointEncoder.load(), request.keypoints, request.seed);
    report({ type: "ready", readsTracks: "MediaStreamTrackProcessor" in self });
    return;
  }
  if (capture === null) throw new Error(`the worker got "${request.type}" before it was ready`);
  switch (request.type) {
    case "frames":
      return capture.read(request.readable);
    case "track":
      return capture.read(new MediaStreamTrackProcessor({ track: request.track }).readable);
    case "picture":
      await capture.look(request.bitmap, request.captureMs);
      return report({ type: "taken" });
    case "muted":
      capture.source.muted = request.muted;
      return;
    case "voice":
      return capture.listen(request.port);
    case "reaction":
      return capture.outgoing.react(request.name);
  }
}

self.onmessage = (/** @type {MessageEvent<Request>} */ event) => {
  handle(event.data).catch(reportError);
};
