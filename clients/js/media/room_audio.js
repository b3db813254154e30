// @ts-check
/**
 * Plays the voices of a room, one audio element for each slot.
 *
 * A browser may refuse to play before the person has clicked. Then `canPlay` is false until `start()` is called in a
 * click.
 */

export class RoomAudio {
  /** @type {HTMLAudioElement[]} */
  #elements = [];
  #onStatus;
  #speaker = "";
  canPlay = true;

  /** @param {(canPlay: boolean) => void} onStatus after each change of `canPlay` */
  constructor(onStatus) {
    this.#onStatus = onStatus;
  }

  /** @param {MediaStreamTrack[]} tracks the voice of each slot */
  play(tracks) {
    while (this.#elements.length < tracks.length) this.#elements.push(this.#element());
    this.#elements.forEach((element, i) => {
      const track = tracks[i] ?? null;
      const stream = /** @type {MediaStream|null} */ (element.srcObject);
      if ((stream?.getAudioTracks()[0] ?? null) === track) return;
      element.srcObject = track && new MediaStream([track]);
      if (track !== null) void this.#begin(element);
    });
  }

  /** Play what was refused; call it in a click. */
  async start() {
    await Promise.all(this.#playing.map((element) => this.#begin(element)));
  }

  /**
   * Use this loudspeaker.
   * @param {string} deviceId "" for the system's
   */
  async useSpeaker(deviceId) {
    await Promise.all(this.#elements.map((element) => setSpeaker(element, deviceId)));
    this.#speaker = deviceId;
  }

  close() {
    for (const element of this.#elements) element.srcObject = null;
    this.#elements = [];
  }

  get #playing() {
    return this.#elements.filter((element) => element.srcObject !== null);
  }

  #element() {
    const element = document.createElement("audio");
    element.autoplay = true;
    if (this.#speaker) void setSpeaker(element, this.#speaker).catch(() => {});
    return element;
  }

  /** @param {HTMLAudioElement} element */
  async #begin(element) {
    try {
      await element.play();
      this.#set(this.#playing.every((one) => !one.paused));
    } catch (error) {
      // Others are "interrupted by a new load request": the element plays something newer.
      if (error instanceof Error && error.name === "NotAllowedError") this.#set(false);
    }
  }

  /** @param {boolean} canPlay */
  #set(canPlay) {
    if (canPlay === this.canPlay) return;
    this.canPlay = canPlay;
    this.#onStatus(canPlay);
  }
}

/**
 * @param {HTMLAudioElement} element
 * @param {string} deviceId
 */
async function setSpeaker(element, deviceId) {
  if (!("setSinkId" in element)) throw new Error("this browser does not let a page choose the loudspeaker");
  await element.setSinkId(deviceId);
}
