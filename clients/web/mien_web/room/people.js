// @ts-check
/**
 * The list of people, and what moderators may do.
 * @import { Room, Participant, RemoteParticipant } from "../client/index.js"
 */

import { byId, icon, initials, make } from "./dom.js";
import { faceOf, isUploaded } from "./gateway.js";
import { confirmed, toast } from "./notices.js";
import { t } from "./words.js";

/**
 * What one may do with another participant. Pure.
 * @param {{moderates: boolean, isLocal: boolean, isMuted: boolean, hand: boolean}} what
 * @returns {("mute"|"lower"|"remove")[]}
 */
export function actionsOn({ moderates, isLocal, isMuted, hand }) {
  if (!moderates || isLocal) return [];
  return [...(isMuted ? [] : /** @type {const} */ (["mute"])), ...(hand ? /** @type {const} */ (["lower"]) : []), "remove"];
}

export class People {
  #room;
  #token;

  /**
   * @param {Room} room
   * @param {() => string} token
   * @param {{link: string|null}} options link: what one sends to others, on an open demo
   */
  constructor(room, token, { link }) {
    this.#room = room;
    this.#token = token;
    byId("copy-link").hidden = link === null;
    byId("copy-link").onclick = () => {
      void navigator.clipboard?.writeText(link ?? "").then(() => toast(t("copy-link.done")));
    };
    byId("lock").onclick = () => this.#try(() => room.lock(!room.locked));
    byId("end").onclick = async () => {
      const isSure = await confirmed({ title: t("end"), text: t("end.text"), yes: t("end") });
      if (isSure) this.#try(() => room.end());
    };
  }

  get moderates() {
    return this.#room.localParticipant?.grants.includes("moderate") ?? false;
  }

  render() {
    const { localParticipant: local, remoteParticipants: others, waitingParticipants: waiting, locked } = this.#room;
    const focused = /** @type {HTMLElement|null} */ (document.activeElement)?.dataset?.action ?? null;
    const people = [...(local === null ? [] : [local]), ...others.values()];
    byId("people-list").replaceChildren(...people.map((one) => this.#person(one)));
    byId("lobby").hidden = waiting.size === 0;
    byId("lobby-list").replaceChildren(...[...waiting.values()].map((one) => this.#waiting(one)));
    byId("moderation").hidden = !this.moderates;
    byId("lock").textContent = t(locked ? "unlock" : "lock");
    byId("lock").setAttribute("aria-pressed", String(locked));
    // What was focused is there again, as another element.
    if (focused !== null) {
      /** @type {HTMLElement|null} */ (document.querySelector(`[data-action="${CSS.escape(focused)}"]`))?.focus();
    }
  }

  /** @param {Participant} one */
  #person(one) {
    const { name, isLocal, isMuted, hand } = one;
    const role = one.grants.includes("moderate") ? t("moderator") : one.avatarId === null ? t("listener") : "";
    const weak = one.connectionQuality === "poor" || one.connectionQuality === "lost";
    const note = [role, weak ? t(`quality.${one.connectionQuality}`) : ""].filter(Boolean).join(" · ");
    const actions = actionsOn({ moderates: this.moderates, isLocal, isMuted, hand }).map((what) =>
      this.#action(what, /** @type {RemoteParticipant} */ (one)),
    );
    return make(
      "li",
      { class: "person", "data-identity": one.identity },
      this.#face(one),
      make(
        "span",
        { class: "person-name" },
        make("b", {}, isLocal ? t("name.you", { name }) : name),
        note === "" ? null : make("small", {}, note),
      ),
      hand ? labelled("hand", t("tile.hand"), "hand") : null,
      isMuted ? labelled("mic-off", t("tile.muted")) : null,
      ...actions,
    );
  }

  /**
   * @param {"mute"|"lower"|"remove"} what
   * @param {RemoteParticipant} one
   */
  #action(what, one) {
    const pictures = { mute: "mic", lower: "hand", remove: "close" };
    const label = t(`moderate.${what}`, { name: one.name });
    const run = async () => {
      if (what === "mute") this.#try(() => this.#room.mute(one));
      else if (what === "lower") this.#try(() => this.#room.lowerHand(one));
      else if (await confirmed({ title: label, text: t("moderate.remove.text", { name: one.name }), yes: t("moderate.remove.yes") })) {
        this.#try(() => this.#room.remove(one));
      }
    };
    return make(
      "button",
      {
        class: "quiet icon",
        type: "button",
        "aria-label": label,
        title: label,
        "data-action": `${what} ${one.id}`,
        onclick: () => void run(),
      },
      icon(pictures[what]),
    );
  }

  /** @param {RemoteParticipant} one */
  #waiting(one) {
    const button = (/** @type {string} */ key, /** @type {() => Promise<void>} */ run) =>
      make(
        "button",
        { class: "secondary", type: "button", "data-action": `${key} ${one.id}`, onclick: () => this.#try(run) },
        t(key),
      );
    return make(
      "li",
      { class: "person" },
      make("span", { class: "person-name" }, make("b", {}, one.name)),
      button("lobby.admit", () => this.#room.admit(one)),
      button("lobby.refuse", () => this.#room.remove(one)),
    );
  }

  /** @param {Participant} one */
  #face({ avatarId, name }) {
    const face = make("span", { class: "person-face", "aria-hidden": "true" }, initials(name));
    if (avatarId !== null) {
      void faceOf(avatarId, this.#token(), !isUploaded(avatarId)).then((url) => {
        if (url !== null) face.replaceChildren(make("img", { alt: "", src: url }));
      });
    }
    return face;
  }

  /** @param {() => Promise<void>} action */
  #try(action) {
    action().catch((error) => toast(t("moderate.failed", { detail: error instanceof Error ? error.message : "" })));
  }
}

/**
 * An icon that says something.
 * @param {string} picture
 * @param {string} words
 * @param {string} [className]
 */
function labelled(picture, words, className = "") {
  const svg = icon(picture, className);
  svg.removeAttribute("aria-hidden");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", words);
  return svg;
}
