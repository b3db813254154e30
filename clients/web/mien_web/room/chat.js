// @ts-check
/** The chat: what was written in the room since one came. */

import { byId, make } from "./dom.js";
import { language } from "./words.js";

/** Older messages leave the page; the room keeps none either. */
const MOST_MESSAGES = 500;
/** How near to the end one must be for new messages to scroll. */
const NEAR_PX = 60;

export class Chat {
  #log = byId("chat-log");
  #text = /** @type {HTMLTextAreaElement} */ (byId("chat-text"));
  #unread = 0;
  /** @type {string|null} */
  #lastWriter = null;

  /**
   * @param {(text: string) => boolean} send false: it could not be sent, and stays in the field
   * @param {(unread: number) => void} onUnread
   */
  constructor(send, onUnread) {
    this.onUnread = onUnread;
    this.#log.replaceChildren();
    const submit = () => {
      const text = this.#text.value.trim();
      if (text === "" || !send(text)) return;
      this.#text.value = "";
      this.#grow();
    };
    byId("chat-form").onsubmit = (event) => (event.preventDefault(), submit());
    this.#text.oninput = () => this.#grow();
    this.#text.onkeydown = (event) => {
      // Enter ends a word of an input method too.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      submit();
    };
    this.#show();
  }

  get isOpen() {
    return !byId("chat").hidden && !byId("panel").hidden;
  }

  /**
   * @param {{id: string, name: string, text: string}} message
   */
  add({ id, name, text }) {
    const isNear = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < NEAR_PX;
    const time = new Date().toLocaleTimeString(language(), { hour: "2-digit", minute: "2-digit" });
    const head = make("header", {}, make("b", {}, name), make("time", {}, time));
    this.#log.append(make("li", {}, ...(this.#lastWriter === id ? [] : [head]), make("p", {}, text)));
    this.#lastWriter = id;
    while (this.#log.childElementCount > MOST_MESSAGES) this.#log.firstElementChild?.remove();
    if (isNear || this.isOpen === false) this.#log.scrollTop = this.#log.scrollHeight;
    if (!this.isOpen) this.#count(this.#unread + 1);
    this.#show();
  }

  /** The panel was opened. */
  read() {
    this.#count(0);
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#text.focus();
  }

  /** @param {number} unread */
  #count(unread) {
    this.#unread = unread;
    this.onUnread(unread);
  }

  #show() {
    const isEmpty = this.#log.childElementCount === 0;
    byId("chat-empty").hidden = !isEmpty;
    this.#log.hidden = isEmpty;
  }

  #grow() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${Math.min(this.#text.scrollHeight + 2, 128)}px`;
  }
}
