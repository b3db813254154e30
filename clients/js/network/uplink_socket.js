// @ts-check
/**
 * The WebSocket that carries motion while there is no data channel. It connects again by itself until `close()`.
 * @import { Gateway } from "./gateway.js"
 */

import { backoffMs } from "./backoff.js";

const SUBPROTOCOL = "mien.v1";
const BACKOFF = { firstMs: 500, limitMs: 10_000 };
/** A newer uplink of the session has replaced this one: the data channel's, which opens next. */
const REPLACED = 4409;

export class UplinkSocket {
  #gateway;
  #sessionId;
  /** @type {WebSocket|null} */
  #socket = null;
  /** @type {ReturnType<typeof setTimeout>|undefined} */
  #timer;
  #failures = 0;

  /**
   * @param {Gateway} gateway
   * @param {string} sessionId
   */
  constructor(gateway, sessionId) {
    this.#gateway = gateway;
    this.#sessionId = sessionId;
    this.#open();
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  get bufferedBytes() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** @param {Uint8Array<ArrayBuffer>} packet */
  send(packet) {
    this.#socket?.send(packet);
  }

  close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #open() {
    const url = this.#gateway.uplinkUrl(this.#sessionId);
    const socket = new WebSocket(url, [SUBPROTOCOL, `bearer.${this.#gateway.token}`]);
    this.#socket = socket;
    socket.onopen = () => (this.#failures = 0);
    socket.onclose = ({ code }) => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      if (code === REPLACED) return;
      this.#timer = setTimeout(() => this.#open(), backoffMs(this.#failures++, BACKOFF));
    };
  }
}
