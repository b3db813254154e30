// @ts-check
/** What `import ... from "mien-client"` gives. */

export { CaptureError, MotionCapture } from "./encoder/capture.js";
export { isSupported } from "./encoder/kernel.js";
export { MediaDevicesError } from "./media/devices.js";
export { PACKET_BYTES } from "./motion/packet.js";
export { MienError } from "./network/gateway.js";
export { LocalParticipant, NotPublishing } from "./room/local_participant.js";
export { Participant } from "./room/participant.js";
export { Preview } from "./room/preview.js";
export { RemoteParticipant } from "./room/remote_participant.js";
export { Room } from "./room/room.js";
export { REACTIONS, RoomError, RoomEvent, Track } from "./room/room_event.js";
