// @ts-check
/**
 * What page and worker say to each other: all of it. A picture goes into the worker and never comes out; of what the
 * camera sees only the packets come back (`Report`).
 */

/**
 * From page to worker. `start` is the first message; then, for each camera, `frames`, `track` or many `picture`s.
 * - `start`: keypoints of the avatar (60 floats), seed of the default motion
 * - `frames`: the readable side of a MediaStreamTrackProcessor, transferred (Chromium)
 * - `track`: the camera's track, transferred; the worker makes the processor (Safari)
 * - `picture`: one picture, transferred, and its capture time; the next one may follow after `taken`
 * - `muted`: whether the camera is muted, has ended or is not there
 * - `voice`: a port by which the audio thread sends the loudness of the voice (voice_worklet.js), transferred
 * - `reaction`: begin a reaction of the face (../motion/reactions.js)
 * @typedef {{type: "start", keypoints: Float32Array, seed: number}
 *   | {type: "frames", readable: ReadableStream<VideoFrame>}
 *   | {type: "track", track: MediaStreamTrack}
 *   | {type: "picture", bitmap: ImageBitmap, captureMs: number}
 *   | {type: "muted", muted: boolean}
 *   | {type: "voice", port: MessagePort}
 *   | {type: "reaction", name: string}} Request
 */

/**
 * What the page may show. face: whether a face is seen. pictures, packets: how many so far. busyMs: mean time spent on
 * a picture since the last state.
 * @typedef {{face: boolean, muted: boolean, pictures: number, packets: number, busyMs: number}} CaptureState
 */

/**
 * From worker to page.
 * - `ready`: the encoder is loaded; whether the worker can read a transferred track
 * - `packet`: 128 bytes for the uplink
 * - `state`: once a second
 * - `taken`: a `picture` has been looked at
 * - `error`: an error's name and text; before `ready` it means that the encoder cannot be loaded
 * @typedef {{type: "ready", readsTracks: boolean}
 *   | {type: "packet", bytes: Uint8Array<ArrayBuffer>}
 *   | {type: "state", state: CaptureState}
 *   | {type: "taken"}
 *   | {type: "error", name: string, message: string}} Report
 */

export {};
