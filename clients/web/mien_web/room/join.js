// @ts-check
/**
 * The join screen: who one will be, and how one looks and sounds, before anybody else sees it.
 * @import { Entry } from "./entry.js"
 */

import { Preview } from "../client/index.js";
import { runCheck } from "./check.js";
import { deviceMenus } from "./devices.js";
import { byId, dress, make } from "./dom.js";
import { rememberAvatar, rememberedName, rememberName } from "./entry.js";
import { Gallery } from "./gallery.js";
import { faceOf, isUploaded, readParticipant } from "./gateway.js";
import { deviceTrouble } from "./trouble.js";
import { t } from "./words.js";

const METER_MS = 60;

/** What was on when the page was left, so that a reload comes back the same. */
export const kept = {
  /** @returns {{camera: boolean, microphone: boolean}} */
  read() {
    try {
      return { camera: true, microphone: true, ...JSON.parse(sessionStorage.getItem("mien-media") ?? "{}") };
    } catch {
      return { camera: true, microphone: true };
    }
  },
  /** @param {{camera: boolean, microphone: boolean}} media */
  write(media) {
    try {
      sessionStorage.setItem("mien-media", JSON.stringify(media));
    } catch {
      // the browser may forbid storage
    }
  },
};

/**
 * Ask for camera and microphone in one question, where the browser would ask.
 * @param {{camera: boolean, microphone: boolean}} wanted
 */
async function askOnce({ camera, microphone }) {
  if (!camera || !microphone || navigator.mediaDevices === undefined) return;
  try {
    const states = await Promise.all(
      ["camera", "microphone"].map((name) =>
        navigator.permissions.query({ name: /** @type {PermissionName} */ (name) }),
      ),
    );
    if (!states.some((one) => one.state === "prompt")) return;
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
    stream.getTracks().forEach((track) => track.stop());
  } catch {
    // Whatever it is, opening the device says it again, with a name.
  }
}

export class JoinScreen {
  #entry;
  #onJoin;
  /** @type {Preview|null} */
  #preview = null;
  /** @type {Gallery|null} */
  #gallery = null;
  #timer = 0;
  #stopMenus = () => {};
  #wanted = kept.read();
  #video = /** @type {HTMLVideoElement} */ (byId("mirror-video"));

  /**
   * @param {Entry} entry
   * @param {(name: string, avatarId: string|null, preview: Preview|null) => Promise<void>} onJoin
   */
  constructor(entry, onJoin) {
    this.#entry = entry;
    this.#onJoin = onJoin;
    const name = /** @type {HTMLInputElement} */ (byId("join-name"));
    name.value = entry.isDemo ? rememberedName() : entry.name;
    name.readOnly = !entry.isDemo;
    byId("join-form").onsubmit = (event) => void this.#join(event);
    byId("join-camera").onclick = () => void this.toggle("camera");
    byId("join-microphone").onclick = () => void this.toggle("microphone");
    byId("check-start").onclick = () => void this.#check();
    for (const type of ["playing", "loadeddata"]) this.#video.addEventListener(type, () => this.#live(true));
    this.#video.addEventListener("emptied", () => this.#live(false));
  }

  get #local() {
    return this.#preview?.localParticipant ?? null;
  }

  async start() {
    this.render();
    const { token, avatarId, mayPublish } = this.#entry;
    this.#stopMenus = deviceMenus(byId("join-devices"), (kind, id) => {
      if (kind !== "audiooutput") return this.#local?.switchDevice(kind, id).catch((error) => this.#trouble(error));
    });
    byId("gallery").closest("fieldset")?.toggleAttribute("hidden", !mayPublish);
    this.#still(avatarId);
    if (!mayPublish) return;
    this.#gallery = new Gallery(byId("gallery"), { token, chosen: avatarId, choose: (id) => this.#wear(id) });
    void this.#gallery.load();
    this.#timer = window.setInterval(() => this.#tick(), METER_MS);
    await this.#mirror();
  }

  /** The words have changed, or what is on. */
  render() {
    const { roomName, present } = this.#entry;
    const shown = roomName ?? t("room.unnamed");
    byId("join-title").textContent = t("join.title", { room: shown });
    document.title = t("title", { room: shown });
    const [first, rest] = [present.slice(0, 3), present.length - 3];
    const key = present.length === 0 ? "join.nobody" : rest > 0 ? "join.people.more" : "join.people";
    const count = rest > 0 ? rest : present.length;
    byId("join-people").textContent = t(key, { names: first.join(", "), count });
    const camera = this.#local?.isCameraEnabled ?? false;
    const microphone = this.#local?.isMicrophoneEnabled ?? false;
    this.#button("camera", camera, ["cam", "cam-off"]);
    this.#button("microphone", microphone, ["mic", "mic-off"]);
    byId("join-meter").hidden = !microphone;
    this.#gallery?.render();
    byId("join-devices").dispatchEvent(new Event("refresh"));
  }

  /**
   * @param {"camera"|"microphone"} what
   * @param {boolean} isOn
   * @param {[string, string]} icons
   */
  #button(what, isOn, [on, off]) {
    const label = t(`${what}.${isOn ? "off" : "on"}`);
    dress(byId(`join-${what}`), isOn ? on : off, label, { pressed: isOn, className: isOn ? "" : "off" });
    /** @type {HTMLButtonElement} */ (byId(`join-${what}`)).disabled = !this.#entry.mayPublish;
  }

  async #mirror() {
    const preview = new Preview(location.origin, this.#entry.token);
    this.#preview = preview;
    preview.on("mediaDevicesError", (error) => this.#trouble(error));
    for (const name of /** @type {const} */ (["localTrackPublished", "localTrackUnpublished"])) {
      preview.on(name, () => this.render());
    }
    try {
      await preview.ready;
    } catch {
      return; // joining says why
    }
    this.#local?.attach(this.#video);
    if (this.#local?.sessionId === null) return;
    this.#hint(t("mirror.asking"));
    await askOnce(this.#wanted);
    await Promise.allSettled([
      this.#wanted.microphone ? this.#local?.setMicrophoneEnabled(true) : null,
      this.#wanted.camera ? this.#local?.setCameraEnabled(true) : null,
    ]);
    this.render();
  }

  /** @param {"camera"|"microphone"} what */
  async toggle(what) {
    const local = this.#local;
    if (local === null) return;
    this.#clearTrouble();
    const next = what === "camera" ? !local.isCameraEnabled : !local.isMicrophoneEnabled;
    try {
      if (what === "camera") await local.setCameraEnabled(next);
      else await local.setMicrophoneEnabled(next);
      this.#wanted[what] = next;
      kept.write(this.#wanted);
    } catch {
      // the event has shown it
    }
    this.render();
  }

  /** @param {string} avatarId */
  async #wear(avatarId) {
    const isFirst = this.#local?.sessionId === null;
    await this.#local?.setAvatar(avatarId);
    this.#entry.avatarId = avatarId;
    if (this.#entry.isDemo) rememberAvatar(avatarId);
    this.#live(false);
    this.#still(avatarId);
    if (isFirst) await Promise.allSettled([this.#local?.setMicrophoneEnabled(true), this.#local?.setCameraEnabled(true)]);
    this.render();
  }

  /** The avatar's picture, until it moves. @param {string|null} avatarId */
  #still(avatarId) {
    const image = /** @type {HTMLImageElement} */ (byId("mirror-still"));
    image.hidden = true;
    if (avatarId === null) return;
    void faceOf(avatarId, this.#entry.token, !isUploaded(avatarId)).then((url) => {
      if (url === null || this.#entry.avatarId !== avatarId) return;
      image.src = url;
      image.hidden = false;
    });
  }

  /** @param {boolean} isLive */
  #live(isLive) {
    this.#video.classList.toggle("live", isLive);
  }

  #tick() {
    const local = this.#local;
    const level = Math.min(1, local?.microphoneLevel ?? 0);
    const meter = byId("join-meter");
    meter.setAttribute("aria-valuenow", String(Math.round(level * 100)));
    /** @type {HTMLElement} */ (meter.firstElementChild).style.transform = `scaleX(${Math.sqrt(level)})`;
    if (local === null || !byId("join-trouble").hidden) return this.#hint("");
    if (local.sessionId === null) return this.#hint(t("mirror.none"));
    if (!this.#video.classList.contains("live")) return this.#hint(t("mirror.starting"));
    this.#hint(local.isCameraEnabled ? (local.seesFace ? "" : t("mirror.no-face")) : t("mirror.off"));
  }

  /** @param {string} text */
  #hint(text) {
    const hint = byId("mirror-hint");
    if (hint.textContent !== text) hint.textContent = text;
    hint.hidden = text === "";
  }

  /** @param {unknown} error */
  #trouble(error) {
    const { title, text } = deviceTrouble(/** @type {any} */ (error));
    const source = /** @type {any} */ (error)?.source === "microphone" ? "microphone" : "camera";
    const box = byId("join-trouble");
    box.replaceChildren(
      make("strong", {}, t(title)),
      make("span", {}, t(text)),
      make("button", { class: "secondary", type: "button", onclick: () => void this.toggle(source) }, t("trouble.again")),
    );
    box.hidden = false;
    this.render();
  }

  #clearTrouble() {
    byId("join-trouble").hidden = true;
    byId("join-trouble").replaceChildren();
  }

  async #check() {
    const button = /** @type {HTMLButtonElement} */ (byId("check-start"));
    button.disabled = true;
    try {
      const { roomId, participantId, token } = this.#entry;
      const own = await readParticipant(roomId, participantId, token).catch(() => null);
      await runCheck(byId("check-list"), {
        level: () => this.#local?.microphoneLevel ?? 0,
        isMicrophoneOn: () => this.#local?.isMicrophoneEnabled ?? false,
        whepUrl: own?.whep_url ?? null,
        token,
      });
    } finally {
      button.disabled = false;
    }
  }

  /** @param {SubmitEvent} event */
  async #join(event) {
    event.preventDefault();
    const input = /** @type {HTMLInputElement} */ (byId("join-name"));
    const name = input.value.trim();
    const isMissing = name === "";
    byId("join-name-error").textContent = isMissing ? t("name.missing") : "";
    byId("join-name-error").hidden = !isMissing;
    input.setAttribute("aria-invalid", String(isMissing));
    if (isMissing) return input.focus();
    if (this.#entry.isDemo) rememberName(name);
    const button = /** @type {HTMLButtonElement} */ (byId("join-button"));
    button.disabled = true;
    button.textContent = t("join.busy");
    try {
      await this.#onJoin(name, this.#gallery?.chosen ?? this.#entry.avatarId, this.#preview);
    } finally {
      button.disabled = false;
      button.textContent = t("join");
    }
  }

  /** The screen is left; the room has taken the preview over, or it is closed here. */
  close() {
    window.clearInterval(this.#timer);
    this.#stopMenus();
    this.#local?.detach(this.#video);
    this.#preview?.close();
    this.#preview = null;
    this.#video.srcObject = null;
  }
}
