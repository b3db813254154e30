// @ts-check
/**
 * The join screen: camera, microphone and one's own avatar before one is in the room.
 *
 * It sends motion, so that the avatar moves, and opens no events: the others do not see that this person is there.
 * @import { RoomEvents } from "./room_event.js"
 */

import { Gateway } from "../network/gateway.js";
import { Emitter } from "./emitter.js";
import { LocalParticipant } from "./local_participant.js";

/**
 * Its events are those of a Room that concern devices. `room.connect(url, token, {preview})` takes it over.
 * @extends {Emitter<RoomEvents>}
 */
export class Preview extends Emitter {
  #gateway;
  /** @type {LocalParticipant|null} */
  #local = null;
  #isClosed = false;

  /**
   * @param {string} gatewayUrl
   * @param {string} token the participant's
   */
  constructor(gatewayUrl, token) {
    super();
    this.#gateway = new Gateway(gatewayUrl, token);
    /** Resolves when `localParticipant` is there; rejects with a MienError if the participant may not enter. */
    this.ready = this.#begin();
    this.ready.catch(() => {}); // callers that await it still get the error
  }

  /** Null until `ready` has resolved, and after the Room has taken it over. */
  get localParticipant() {
    return this.#local;
  }

  /** Stop camera and microphone, and close the connections. */
  close() {
    this.#isClosed = true;
    this.#local?.close();
    this.#local = null;
  }

  /**
   * @internal
   * @returns {LocalParticipant|null} it belongs to the caller from now on
   */
  handOver() {
    const local = this.#local;
    this.#local = null;
    this.close();
    return local;
  }

  async #begin() {
    const gateway = this.#gateway;
    const [info, servers] = await Promise.all([
      gateway.readParticipant(gateway.participantId),
      gateway.iceServers().catch(() => []), // host candidates may be enough
    ]);
    if (this.#isClosed) return;
    this.#local = new LocalParticipant(info, { events: this, gateway, send: () => {} });
    // The room's addresses come with its events; until then those of the own session do.
    this.#local.useConnection({ whip_url: null, whep_url: null, uplink_url: null, ice_servers: servers });
  }
}
