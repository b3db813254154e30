// @ts-check
/**
 * The person at this device: camera, microphone, and its own avatar as the server draws it.
 *
 * A Room or a Preview owns one. The camera's picture stays in the worker that turns it into motion (encoder/worker.js).
 * @import { Emitter } from "./emitter.js"
 * @import { ParticipantInfo } from "./room_state.js"
 * @import { RoomEvents } from "./room_event.js"
 * @import { Gateway } from "../network/gateway.js"
 * @import { MediaDevicesError } from "../media/devices.js"
 */

import { AvatarMotion } from "../media/avatar_motion.js";
import { Microphone } from "../media/microphone.js";
import { Publisher } from "../network/publisher.js";
import { Participant } from "./participant.js";
import { SelfView } from "./self_view.js";

/**
 * What a LocalParticipant needs from its Room or Preview. send: a message on the room's events.
 * @typedef {{events: Emitter<RoomEvents>, gateway: Gateway, send: (message: object) => void}} Host
 */

/** This participant has no avatar, or may not publish: nothing can be sent. */
export class NotPublishing extends Error {
  name = "NotPublishing";
}

export class LocalParticipant extends Participant {
  #host;
  #publisher;
  #selfView;
  #microphone = new Microphone({
    onTrack: (track) => {
      void this.#publisher.setVoice(track);
      this.#motion.hear(track);
    },
    onSilent: () => this.#host.events.emit("silentMicrophone"),
    onLost: (error) => this.#microphoneLost(error),
  });
  #motion = new AvatarMotion({
    onPacket: (packet) => this.#publisher.sendMotion(packet),
    onLost: (error) => this.#cameraLost(error),
    onError: (error) => console.error("the avatar does not move as it should", error),
  });
  /** What was said about the microphone and has not come back from the room yet. @type {boolean|null} */
  #saidMuted = null;
  /** Of the newest avatar. @type {{avatarId: string, values: Float32Array}|null} */
  #keypoints = null;
  /** @type {Promise<unknown>} */
  #switching = Promise.resolve();

  /**
   * @internal
   * @param {ParticipantInfo} info
   * @param {Host} host
   */
  constructor(info, host) {
    super(info);
    this.#host = host;
    this.#publisher = new Publisher(host.gateway);
    this.#selfView = new SelfView(host.gateway);
    this.#connect();
  }

  get isLocal() {
    return true;
  }

  get isCameraEnabled() {
    return this.#motion.isCameraOn;
  }

  get isMicrophoneEnabled() {
    return this.#microphone.isOn;
  }

  /** How loud the microphone is, 0..1; 0 while it is off. */
  get microphoneLevel() {
    return this.#microphone.level;
  }

  /** Whether the camera has seen a face in the last second. */
  get seesFace() {
    return this.#motion.seesFace;
  }

  /** What the encoder takes for a picture, in its worker, milliseconds. */
  get encoderMs() {
    return this.#motion.busyMs;
  }

  /**
   * Let the avatar move with the face in front of the camera, or end that. Only motion is sent.
   * @param {boolean} enabled
   * @param {{deviceId?: string}} [options]
   * @throws {MediaDevicesError} the camera cannot be used; the event mediaDevicesError says so, too
   * @throws {NotPublishing} this participant has no avatar
   */
  setCameraEnabled(enabled, { deviceId } = {}) {
    return this.#inTurn(async () => {
      if (!enabled) return this.#cameraOff();
      await this.#prepare();
      await this.#using(() => this.#motion.enableCamera(deviceId));
      this.#publisher.start();
      this.#host.events.emit("localTrackPublished", "camera", this);
    });
  }

  /**
   * Send the microphone's sound, or mute it. The others see that it is muted.
   * @param {boolean} enabled
   * @param {{deviceId?: string}} [options]
   * @throws {MediaDevicesError} the microphone cannot be used; the event mediaDevicesError says so, too
   * @throws {NotPublishing} this participant has no avatar
   */
  setMicrophoneEnabled(enabled, { deviceId } = {}) {
    return this.#inTurn(async () => {
      if (enabled) {
        this.#demandSession();
        await this.#using(() => this.#microphone.enable(deviceId));
        this.#publisher.start();
        // Without a face the voice opens the mouth. A browser that cannot do this can still speak.
        await this.#prepare().catch((error) => console.error("the mouth does not follow the voice", error));
        this.#host.events.emit("localTrackPublished", "microphone", this);
      } else if (this.#microphone.isOn) {
        this.#microphoneOff();
      }
      this.#tellMuted();
    });
  }

  /**
   * Use another device from now on; for the next time, if the source is off.
   * @param {"videoinput"|"audioinput"} kind
   * @param {string} deviceId
   */
  async switchDevice(kind, deviceId) {
    if (kind === "videoinput" && this.isCameraEnabled) await this.setCameraEnabled(true, { deviceId });
    if (kind === "audioinput" && this.isMicrophoneEnabled) await this.setMicrophoneEnabled(true, { deviceId });
  }

  /**
   * Raise or lower the hand.
   * @param {boolean} raised
   */
  setHand(raised) {
    this.#host.send({ type: "hand", raised });
    if (raised) this.#motion.react("hand");
  }

  /**
   * Appear as another avatar; null: become a listener.
   * @param {string|null} avatarId
   * @throws {import("../network/gateway.js").MienError}
   */
  async setAvatar(avatarId) {
    const info = await this.#host.gateway.changeParticipant(this.id, { avatar_id: avatarId });
    this.update(info);
  }

  /**
   * Show the own avatar as the others see it.
   * @param {HTMLVideoElement} [element] default: a new one
   * @returns {HTMLVideoElement}
   */
  attach(element = document.createElement("video")) {
    this.#selfView.attach(element);
    return element;
  }

  /**
   * Show the own avatar no more.
   * @param {HTMLVideoElement} [element] default: all of its elements
   * @returns {HTMLVideoElement[]}
   */
  detach(element) {
    return this.#selfView.detach(element);
  }

  /** @internal */
  get publisher() {
    return this.#publisher;
  }

  /**
   * What the room says about this participant.
   * @internal
   * @param {ParticipantInfo} info
   */
  update(info) {
    const before = this.info;
    super.update(info);
    if (before.session_id !== info.session_id) this.#connect();
    if (before.avatar_id !== info.avatar_id && info.avatar_id !== null) void this.#retarget();
    if (this.#saidMuted === info.muted) this.#saidMuted = null;
    // A moderator has muted this participant.
    else if (this.#saidMuted === null && info.muted && this.#microphone.isOn) this.#microphoneOff();
  }

  /**
   * The face shows a reaction, if the camera or the microphone was on before.
   * @internal
   * @param {string} name
   */
  react(name) {
    this.#motion.react(name);
  }

  /**
   * Belong to another Room or Preview, with all that is on and connected.
   * @internal
   * @param {Host} host
   */
  moveTo(host) {
    this.#host = host;
    this.#publisher.gateway = host.gateway;
    this.#selfView.gateway = host.gateway;
  }

  /**
   * The room's events are open: it learns whether the microphone is on. Sent again after each loss.
   * @internal
   */
  onRoomOpen() {
    this.#saidMuted = null;
    this.#tellMuted();
  }

  /**
   * @internal
   * @param {import("./room_state.js").Connection|null} connection
   */
  useConnection(connection) {
    this.#publisher.connection = connection;
    this.#selfView.iceServers = connection?.ice_servers ?? [];
    this.#connect();
  }

  /**
   * Connect anew: the network has changed.
   * @internal
   */
  restart() {
    this.#publisher.restart();
    this.#selfView.restart();
  }

  /** End everything: devices, worker, connections. @internal */
  close() {
    this.#microphone.close();
    this.#motion.close();
    this.#publisher.close();
    this.#selfView.close();
  }

  #connect() {
    this.#publisher.setSession(this.sessionId, this.info.whep_url);
    this.#selfView.setUrl(this.info.whep_url);
  }

  #tellMuted() {
    const muted = !this.#microphone.isOn;
    if (this.isMuted === muted && this.#saidMuted === null) return;
    this.#saidMuted = muted;
    this.#host.send({ type: "mute", muted });
  }

  #retarget() {
    const isUsed = this.isCameraEnabled || this.isMicrophoneEnabled;
    const retargeted = this.#inTurn(() => (isUsed ? this.#prepare() : undefined));
    return retargeted.catch((error) => console.error("the new avatar does not move", error));
  }

  #demandSession() {
    if (this.sessionId === null || !this.grants.includes("publish")) {
      throw new NotPublishing("this participant has no avatar, or may not publish");
    }
  }

  async #prepare() {
    this.#demandSession();
    const avatarId = /** @type {string} */ (this.avatarId);
    if (this.#keypoints?.avatarId !== avatarId) {
      this.#keypoints = { avatarId, values: await this.#host.gateway.avatarKeypoints(avatarId) };
    }
    await this.#motion.prepare(this.#keypoints.values);
  }

  /**
   * @param {() => Promise<void>} enable
   */
  async #using(enable) {
    try {
      await enable();
    } catch (error) {
      if (error instanceof Error && error.name === "MediaDevicesError") {
        this.#host.events.emit("mediaDevicesError", /** @type {MediaDevicesError} */ (error));
      }
      throw error;
    }
  }

  #cameraOff() {
    if (!this.#motion.isCameraOn) return;
    this.#motion.disableCamera();
    this.#host.events.emit("localTrackUnpublished", "camera", this);
  }

  #microphoneOff() {
    this.#microphone.disable();
    this.#host.events.emit("localTrackUnpublished", "microphone", this);
  }

  /** @param {MediaDevicesError} error */
  #cameraLost(error) {
    this.#host.events.emit("localTrackUnpublished", "camera", this);
    this.#host.events.emit("mediaDevicesError", error);
  }

  /** @param {MediaDevicesError} error */
  #microphoneLost(error) {
    this.#host.events.emit("localTrackUnpublished", "microphone", this);
    this.#host.events.emit("mediaDevicesError", error);
    this.#tellMuted();
  }

  /**
   * One switch after the other: two quick clicks must not leave a camera open that is shown as off.
   * @param {() => Promise<void>|void} action
   * @returns {Promise<void>}
   */
  #inTurn(action) {
    const done = this.#switching.then(action);
    this.#switching = done.catch(() => {});
    return done;
  }
}
