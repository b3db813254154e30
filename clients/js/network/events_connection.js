// @ts-check
/**
 * The WebSocket of a room's events. It connects again by itself, with `?since=`, so that nothing is missed.
 * @import { DisconnectCode } from "../room/room_event.js"
 * @import { Gateway } from "./gateway.js"
 */

import { backoffMs } from "./backoff.js";
import { finalClose, finalRefusal } from "./close_codes.js";
import { MienError } from "./gateway.js";

const SUBPROTOCOL = "mien.room.v1";
const BACKOFF = { firstMs: 250, limitMs: 5000 };
/** A handshake that takes longer has met a network that drops packets. */
const OPEN_TIMEOUT_MS = 8000;
/** Messages that wait for a connection. Chat of half a minute; then `send` says no. */
const MAX_WAITING = 64;

/**
 * since: the newest sequence number that is known. onEvent: every event. onLost: the connection broke, another one is
 * being made. onEnd: for good.
 * @typedef {object} EventsOptions
 * @property {Gateway} gateway
 * @property {() => number|null} since
 * @property {(event: Record<string, any>) => void} onEvent
 * @property {() => void} onLost
 * @property {(code: DisconnectCode, text: string) => void} onEnd
 */

export class EventsConnection {
  #options;
  /** @type {WebSocket|null} */
  #socket = null;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;
  /** @type {string[]} */
  #waiting = [];
  #failures = 0;
  #isClosed = false;

  /** @param {EventsOptions} options */
  constructor(options) {
    this.#options = options;
    this.#open();
  }

  /**
   * Send a message, now or when the connection is back.
   * @param {object} message
   * @returns {boolean} false if it was dropped: the connection has ended, or too many messages wait
   */
  send(message) {
    if (this.#isClosed) return false;
    const text = JSON.stringify(message);
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(text);
    else if (this.#waiting.length < MAX_WAITING) this.#waiting.push(text);
    else return false;
    return true;
  }

  /** Connect anew: the network has changed, and the present connection may be dead without a sign. */
  refresh() {
    if (this.#isClosed) return;
    this.#drop();
    this.#failures = 0;
    this.#options.onLost();
    this.#open();
  }

  /** End the connection; nothing is called afterwards. */
  close() {
    this.#isClosed = true;
    this.#drop();
  }

  #open() {
    const { gateway, since, onEvent } = this.#options;
    const socket = new WebSocket(gateway.eventsUrl(since()), [SUBPROTOCOL, `bearer.${gateway.token}`]);
    this.#socket = socket;
    let wasOpen = false;
    this.#timer = setTimeout(() => this.#lose(socket), OPEN_TIMEOUT_MS);
    socket.onopen = () => {
      wasOpen = true;
      clearTimeout(this.#timer);
      for (const text of this.#waiting.splice(0)) socket.send(text);
    };
    socket.onmessage = ({ data }) => {
      this.#failures = 0;
      onEvent(JSON.parse(data));
    };
    socket.onclose = ({ code }) => {
      const final = finalClose(code);
      if (final !== null) return this.#end(final);
      this.#lose(socket, !wasOpen);
    };
  }

  /**
   * @param {WebSocket} socket
   * @param {boolean} [wasRefused] it may have been refused for a reason that stays
   */
  async #lose(socket, wasRefused = false) {
    if (this.#socket !== socket) return;
    this.#drop();
    this.#options.onLost();
    const final = wasRefused ? await this.#whyRefused() : null;
    if (this.#isClosed || this.#socket !== null) return; // refresh() was quicker
    if (final !== null) return this.#end(final);
    this.#timer = setTimeout(() => this.#open(), backoffMs(this.#failures++, BACKOFF));
  }

  async #whyRefused() {
    try {
      await this.#options.gateway.readRoom();
    } catch (error) {
      if (error instanceof MienError) return finalRefusal(error);
    }
    return null;
  }

  /** @param {{code: DisconnectCode, text: string}} final */
  #end({ code, text }) {
    if (this.#isClosed) return;
    this.close();
    this.#options.onEnd(code, text);
  }

  #drop() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }
}
