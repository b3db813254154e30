// @ts-check
/** What `import ... from "mien-client"` gives. */

export { CaptureError, MotionCapture } from "./encoder/capture.js";
export { isSupported } from "./encoder/kernel.js";
export { PACKET_BYTES } from "./motion/packet.js";
