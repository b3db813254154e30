// @ts-check
/**
 * One person on the stage: picture, name, and what concerns them now.
 * @import { Participant, RemoteParticipant, LocalParticipant } from "../client/index.js"
 */

import { icon, initials, make } from "./dom.js";
import { faceOf, isUploaded } from "./gateway.js";
import { t } from "./words.js";

const REACTION_MS = 2600;

export class Tile {
  #video = make("video", { playsinline: true, autoplay: true });
  #face = make("span", {});
  #name = make("b", {});
  #label = make("p", { class: "tile-name" });
  #marks = make("div", { class: "tile-marks" });
  #chip = make("span", { class: "chip tile-chip" });
  /** @type {string|null|undefined} */
  #shownAvatar;
  #isLive = false;

  /**
   * @param {Participant} participant
   * @param {{token: () => string, onPin: (id: string) => void}} options
   */
  constructor(participant, { token, onPin }) {
    this.participant = participant;
    this.#token = token;
    this.#video.muted = true;
    this.#label.append(this.#name);
    this.element = make(
      "div",
      { class: "tile", role: "group", "data-id": participant.id, ondblclick: () => onPin(participant.id) },
      make("div", { class: "tile-face" }, this.#face),
      this.#video,
      this.#marks,
      this.#chip,
      this.#label,
    );
    for (const type of ["playing", "loadeddata"]) this.#video.addEventListener(type, () => this.#live(true));
    this.#video.addEventListener("emptied", () => this.#live(false));
    /** @type {RemoteParticipant|LocalParticipant} */ (participant).attach(this.#video);
    this.render();
  }

  #token;

  get id() {
    return this.participant.id;
  }

  get video() {
    return this.#video;
  }

  /** @param {Participant} participant the same person, as it is known now */
  follow(participant) {
    if (participant === this.participant) return;
    this.participant = participant;
    /** @type {RemoteParticipant|LocalParticipant} */ (participant).attach(this.#video);
  }

  render() {
    const { participant } = this;
    const name = participant.isLocal ? t("name.you", { name: participant.name }) : participant.name;
    this.#name.textContent = name;
    this.#label.querySelector("svg")?.remove();
    if (participant.isMuted) this.#label.prepend(icon("mic-off"));
    const words = [name];
    if (participant.isMuted) words.push(t("tile.muted"));
    if (participant.hand) words.push(t("tile.hand"));
    this.element.setAttribute("aria-label", words.join(", "));
    this.#marks.replaceChildren();
    if (participant.hand) {
      this.#marks.append(make("span", { class: "tile-hand", title: t("tile.hand") }, icon("hand")));
    }
    const quality = participant.connectionQuality;
    if (quality === "poor" || quality === "lost") {
      const mark = make("span", { class: "tile-quality", "data-quality": quality }, icon("bars"), make("b", {}, t(`quality.${quality}`)));
      mark.title = t(`quality.${quality}`);
      this.#marks.append(mark);
    }
    this.#chip.textContent = t("synthetic.short");
    this.#chip.title = t("synthetic.why");
    this.#chip.hidden = participant.avatarId === null;
    this.speak(participant.isSpeaking);
    this.#showFace();
    this.#show();
  }

  /** @param {boolean} isSpeaking */
  speak(isSpeaking) {
    this.element.dataset.speaking = String(isSpeaking);
  }

  /** @param {string} reaction */
  react(reaction) {
    this.element.querySelector(".tile-reaction")?.remove();
    const bubble = make("span", { class: "tile-reaction" }, icon(reaction));
    this.element.append(bubble);
    setTimeout(() => bubble.remove(), REACTION_MS);
  }

  /** @param {import("./layout.js").Rectangle|null} place null: not shown */
  lie(place) {
    this.element.hidden = place === null;
    if (place === null) return;
    const { style } = this.element;
    style.setProperty("--x", `${place.x}px`);
    style.setProperty("--y", `${place.y}px`);
    style.setProperty("--w", `${place.width}px`);
    style.setProperty("--h", `${place.height}px`);
  }

  close() {
    /** @type {RemoteParticipant|LocalParticipant} */ (this.participant).detach(this.#video);
    this.#video.srcObject = null;
    this.element.remove();
  }

  /** @param {boolean} isLive */
  #live(isLive) {
    this.#isLive = isLive && this.#video.videoWidth > 0;
    this.#show();
  }

  #show() {
    const { participant } = this;
    const receives = participant.isLocal
      ? participant.sessionId !== null
      : /** @type {RemoteParticipant} */ (participant).hasVideo;
    this.element.dataset.picture = this.#isLive && receives ? "live" : "none";
  }

  /** The face in a circle, while no moving picture is there. */
  #showFace() {
    const { avatarId, name } = this.participant;
    if (avatarId === this.#shownAvatar) return;
    this.#shownAvatar = avatarId;
    this.#face.replaceChildren(initials(name));
    if (avatarId === null) return;
    void faceOf(avatarId, this.#token(), !isUploaded(avatarId)).then((url) => {
      if (url === null || this.#shownAvatar !== avatarId) return;
      const image = make("img", { alt: "", src: url });
      image.onload = () => this.#face.replaceChildren(image);
    });
  }
}
