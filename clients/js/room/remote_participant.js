// @ts-check
/**
 * Another person in the room: its picture can be shown in video elements. Its voice is played by the Room.
 * @import { Slot } from "../network/room_receiver.js"
 */

import { Participant } from "./participant.js";

export class RemoteParticipant extends Participant {
  /** @type {Set<HTMLVideoElement>} */
  #elements = new Set();
  /** @type {Slot|null} */
  #slot = null;

  /** Whether its picture is received now. With more people than slots, not everybody's is. */
  get hasVideo() {
    return this.#slot !== null;
  }

  /**
   * Show its picture in an element, as soon and as long as there is one. The element has no sound.
   * @param {HTMLVideoElement} [element] default: a new one
   * @returns {HTMLVideoElement}
   */
  attach(element = document.createElement("video")) {
    element.autoplay = element.muted = element.playsInline = true;
    this.#elements.add(element);
    show(element, this.#slot);
    return element;
  }

  /**
   * Show its picture no more.
   * @param {HTMLVideoElement} [element] default: all of its elements
   * @returns {HTMLVideoElement[]} those that showed it
   */
  detach(element) {
    const elements = [...this.#elements].filter((one) => element === undefined || one === element);
    for (const one of elements) {
      this.#elements.delete(one);
      show(one, null);
    }
    return elements;
  }

  /** @internal */
  get slot() {
    return this.#slot;
  }

  /**
   * @internal
   * @param {Slot|null} slot
   */
  place(slot) {
    const isSame = slot?.video === this.#slot?.video;
    this.#slot = slot;
    if (isSame) return;
    for (const element of this.#elements) show(element, slot);
  }
}

/**
 * @param {HTMLVideoElement} element
 * @param {Slot|null} slot
 */
function show(element, slot) {
  if (slot === null) {
    element.srcObject = null;
    return;
  }
  element.srcObject = new MediaStream([slot.video]);
  element.play().catch(() => {}); // it plays by itself when it is in the page; muted pictures need no click
}
