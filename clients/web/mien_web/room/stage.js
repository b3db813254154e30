// @ts-check
/**
 * The stage: a tile for everybody, in a grid or with one in large.
 * @import { Room, Participant } from "../client/index.js"
 */

import { byId, make } from "./dom.js";
import { gridOf, inFocus, MOST_TILES, speakerLayout } from "./layout.js";
import { Tile } from "./tile.js";
import { t } from "./words.js";

export class Stage {
  #room;
  #token;
  #box = byId("stage");
  /** @type {Map<string, Tile>} */
  #tiles = new Map();
  /** @type {"grid"|"speaker"} */
  #layout = "grid";
  /** @type {string|null} */
  #pinned = null;
  /** @type {string|null} */
  #focus = null;
  #more = make("div", { class: "tile tile-more" });
  #sizes = new ResizeObserver(() => this.#place());

  /** @param {Room} room @param {() => string} token */
  constructor(room, token) {
    this.#room = room;
    this.#token = token;
    this.#box.replaceChildren();
    this.#sizes.observe(this.#box);
  }

  get layout() {
    return this.#layout;
  }

  /** The large tile, or the first: what a small window shows. */
  get focusVideo() {
    return this.#tiles.get(this.#focus ?? "")?.video ?? null;
  }

  /** @param {"grid"|"speaker"} layout */
  setLayout(layout) {
    this.#layout = layout;
    this.#pinned = null;
    this.#place();
  }

  /** Somebody came, left or changed. */
  update() {
    const people = this.#people();
    const ids = new Set(people.map((one) => one.id));
    for (const [id, tile] of this.#tiles) {
      if (ids.has(id)) continue;
      tile.close();
      this.#tiles.delete(id);
    }
    for (const one of people) {
      const known = this.#tiles.get(one.id);
      if (known !== undefined) {
        known.follow(one);
        known.render();
        continue;
      }
      const tile = new Tile(one, { token: this.#token, onPin: (id) => this.#pin(id) });
      this.#tiles.set(one.id, tile);
      this.#box.append(tile.element);
    }
    this.#place();
  }

  /** Only who speaks has changed: this happens often. */
  speak() {
    for (const tile of this.#tiles.values()) tile.speak(tile.participant.isSpeaking);
    if (this.#layout === "speaker") this.#place();
  }

  /** @param {string} id @param {string} reaction */
  react(id, reaction) {
    this.#tiles.get(id)?.react(reaction);
  }

  close() {
    this.#sizes.disconnect();
    for (const tile of this.#tiles.values()) tile.close();
    this.#tiles.clear();
    this.#more.remove();
  }

  /** @returns {Participant[]} the others in the order of joining, then oneself */
  #people() {
    const { localParticipant: local, remoteParticipants: others } = this.#room;
    return [...others.values(), ...(local === null ? [] : [local])];
  }

  /** @param {string} id */
  #pin(id) {
    this.#pinned = this.#layout === "speaker" && this.#pinned === id ? null : id;
    this.#layout = this.#pinned === null ? "grid" : "speaker";
    this.#place();
    this.#box.dispatchEvent(new CustomEvent("layout"));
  }

  #place() {
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (width === 0 || height === 0) return;
    const ids = this.#people().map((one) => one.id);
    this.#focus = inFocus({
      ids,
      pinned: this.#pinned,
      speakers: this.#room.activeSpeakers.map((one) => one.id),
      before: this.#focus,
      local: this.#room.localParticipant?.id ?? null,
    });
    this.#box.dataset.layout = this.#layout;
    const order =
      this.#layout === "speaker" && this.#focus !== null ? [this.#focus, ...ids.filter((id) => id !== this.#focus)] : ids;
    const { tiles, shown } =
      this.#layout === "speaker"
        ? speakerLayout(order.length, width, height)
        : {
            tiles: gridOf(Math.min(order.length, MOST_TILES), width, height),
            shown: Math.min(order.length, MOST_TILES),
          };
    // Who is left over is counted in the last place.
    const hidden = order.length - shown;
    const last = hidden > 0 ? shown - 1 : shown;
    order.forEach((id, number) => this.#tiles.get(id)?.lie(number < last ? tiles[number] : null));
    this.#count(hidden > 0 ? hidden + 1 : 0, tiles[last]);
  }

  /** @param {number} count @param {import("./layout.js").Rectangle|undefined} place */
  #count(count, place) {
    if (count === 0 || place === undefined) return this.#more.remove();
    this.#more.textContent = t("tile.more", { count });
    const { style } = this.#more;
    for (const [name, value] of [["--x", place.x], ["--y", place.y], ["--w", place.width], ["--h", place.height]]) {
      style.setProperty(String(name), `${value}px`);
    }
    this.#box.append(this.#more);
  }
}
