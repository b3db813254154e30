// @ts-check
/**
 * Cameras, microphones and loudspeakers, with errors that have names.
 *
 * The camera's picture stays in the tab; 640x480 is what the encoder reads.
 */

/**
 * - `denied`: the person or the browser's settings refused
 * - `system-denied`: the operating system keeps the device from the browser
 * - `not-found`: there is no such device, or it was unplugged
 * - `in-use`: another program holds it
 * - `insecure`: the page was not loaded over https or from localhost
 * - `failed`: anything else; `cause` is the browser's error
 * @typedef {"denied"|"system-denied"|"not-found"|"in-use"|"insecure"|"failed"} DeviceErrorCode
 * @typedef {"camera"|"microphone"} InputSource
 */

/** A camera or microphone cannot be used. `code` is a DeviceErrorCode, `source` the kind of device. */
export class MediaDevicesError extends Error {
  name = "MediaDevicesError";

  /**
   * @param {DeviceErrorCode} code
   * @param {InputSource} source
   * @param {string} text
   * @param {unknown} [cause]
   */
  constructor(code, source, text, cause) {
    super(text, { cause });
    this.code = code;
    this.source = source;
  }
}

const CAMERA = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30, max: 60 } };
const CLEAR_VOICE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
const MICROPHONE = { ...CLEAR_VOICE, channelCount: { ideal: 1 } };

/**
 * The name of what getUserMedia threw (Media Capture and Streams, section 10.2). Pure.
 * @param {unknown} error
 * @param {InputSource} source
 * @returns {MediaDevicesError}
 */
export function deviceError(error, source) {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  const fail = (/** @type {DeviceErrorCode} */ code, /** @type {string} */ text) =>
    new MediaDevicesError(code, source, text, error);
  switch (name) {
    case "NotAllowedError":
    case "SecurityError":
      return /system/i.test(message)
        ? fail("system-denied", `the operating system does not let the browser use the ${source}`)
        : fail("denied", `the permission to use the ${source} was refused`);
    case "NotFoundError":
    case "OverconstrainedError":
      return fail("not-found", `there is no such ${source}`);
    case "NotReadableError":
    case "AbortError":
      return fail("in-use", `the ${source} cannot be read: another program may be using it`);
    default:
      return fail("failed", `the ${source} cannot be used: ${message}`);
  }
}

/**
 * Open a camera or microphone.
 * @param {InputSource} source
 * @param {string} [deviceId] default: the browser's choice
 * @returns {Promise<MediaStreamTrack>}
 * @throws {MediaDevicesError}
 */
export async function openDevice(source, deviceId) {
  const devices = globalThis.navigator?.mediaDevices;
  if (devices === undefined) {
    throw new MediaDevicesError("insecure", source, `a page needs https or localhost to use the ${source}`);
  }
  const exact = deviceId === undefined ? {} : { deviceId: { exact: deviceId } };
  const constraints = source === "camera" ? { video: { ...CAMERA, ...exact } } : { audio: { ...MICROPHONE, ...exact } };
  try {
    return (await devices.getUserMedia(constraints)).getTracks()[0];
  } catch (error) {
    throw deviceError(error, source);
  }
}

/**
 * Devices of a kind. Their labels are empty until a device of that kind was allowed.
 * @param {MediaDeviceKind} kind
 * @returns {Promise<MediaDeviceInfo[]>}
 */
export async function listDevices(kind) {
  const devices = (await globalThis.navigator?.mediaDevices?.enumerateDevices()) ?? [];
  return devices.filter((one) => one.kind === kind);
}
