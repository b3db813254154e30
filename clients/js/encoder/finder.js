// @ts-check
/**
 * Finds faces with the encoder itself: it looks at a grid of crops, then frames the best of them again and again.
 *
 * K tolerates a crop that is 1.25 times too large or too small, and one that is off by 0.3 of its size; its keypoints
 * then lead to the right crop in one step. So two sizes, and steps of half a crop, cover the picture.
 *
 * K also claims what is no face, for it was not trained on such crops. A face stays where it is, also in a crop that is
 * a little too large, too small or off, and its keypoints lie as those of a face. Other claims wander. The Python side
 * is `mien_encoder/finder.py`, with the same grid, order and thresholds; decision 25 says where they come from.
 *
 * A search is spread over pictures, because one look takes about 1.3 ms:
 *
 *     idle --an interval after the last search began--> scanning --all of the grid seen--> confirming
 *     idle <------------------ every claim is confirmed or dropped ------------------------ confirming
 *
 * Pure but for the encoder, which holds the picture; the caller passes the time.
 * @import { CropSquare } from "./crop.js"
 * @import { EncodedFace } from "./kernel.js"
 */

import { changeOf, fitLayout, framingOf, isUsable } from "./crop.js";

/** Time from the beginning of a search to that of the next one. */
export const SEARCH_INTERVAL_S = 0.4;
/** Sides of the grid's crops as shares of the picture's shorter side. */
const SIZES = [1, 0.45];
/** A smaller crop cannot lead to one of the least usable size. */
const SMALLEST_LOOK_PX = 20;
/** Steps of the grid, at most, as a share of a crop's side. */
const STEP = 0.5;
/** How many crops of the grid are looked at in one picture. */
const LOOKS_A_PICTURE = 4;
/** Below this a crop of the grid shows nothing that framing could turn into a face. */
const CLAIM_PRESENCE = 0.05;
/** How many claims of a scan are followed up. */
const MOST_CLAIMS = 3;
/**
 * A face is confirmed by these looks in a row, one a picture, each of a crop that is moved by a share of the claim's side
 * to the right and down, and then grown...
 * @type {ReadonlyArray<readonly [right: number, down: number, growth: number]>}
 */
const CONFIRMING_LOOKS = [[0, 0, 1], [0, 0, 1.18], [0, 0, 0.85], [-0.12, 0, 1], [0, 0.12, 1]];
/** ... in which its keypoints lie as those of a face (see LayoutFit) and lead back to the claim (see changeOf). */
const CONFIRMED_PRESENCE = 0.7;
const MOST_MISFIT = 0.07;
const MOST_SHIFT = 0.02;
const MOST_GROWTH = 0.1;
/** A claim is dropped when so many pictures in a row deny it, or when so many in all have not confirmed it. */
const MOST_DENIALS = 4;
const MOST_LOOKS = 16;

/**
 * What the finder and the tracker need of an encoder: a picture of this size, and a look at one of its crops.
 * @typedef {{readonly width: number, readonly height: number, encode(square: CropSquare): EncodedFace}} Look
 *
 * A crop that may show a face, how many pictures in a row have said so or denied it, and how many there were.
 * @typedef {{box: CropSquare, presence: number, confirmed: number, denied: number, looks: number}} Claim
 */

/**
 * The crops of the grid for a picture, larger ones first, but for those with too few pixels for a face.
 * @param {number} width
 * @param {number} height
 * @returns {CropSquare[]}
 */
export function gridOf(width, height) {
  return SIZES.flatMap((share) => {
    const size = share * Math.min(width, height);
    if (size < SMALLEST_LOOK_PX) return [];
    const xs = placesOf(width - size, STEP * size);
    return placesOf(height - size, STEP * size).flatMap((y) => xs.map((x) => ({ x, y, size })));
  });
}

/**
 * Places from 0 to `length`, evenly spaced by at most `step`; the middle if there is no length.
 * @param {number} length
 * @param {number} step
 */
function placesOf(length, step) {
  const gaps = Math.ceil(length / step);
  return Array.from({ length: gaps + 1 }, (_, i) => (gaps === 0 ? length / 2 : (length * i) / gaps));
}

/** The search for faces in a video. */
export class GridFinder {
  #look;
  /** @type {"idle"|"scanning"|"confirming"} */
  #state = "idle";
  #beganAtS = -Infinity;
  /** @type {CropSquare[]} what is left of the grid */
  #grid = [];
  /** @type {Claim[]} */
  #claims = [];

  /** @param {Look} look */
  constructor(look) {
    this.#look = look;
  }

  /**
   * Go on with the search in the next picture, which the encoder holds.
   * @param {number} timeS when it was captured
   * @returns {CropSquare[]} confirmed faces, largest first; empty until a search ends
   */
  find(timeS) {
    switch (this.#state) {
      case "idle":
        if (timeS - this.#beganAtS < SEARCH_INTERVAL_S) return [];
        this.#beganAtS = timeS;
        this.#grid = gridOf(this.#look.width, this.#look.height);
        this.#claims = [];
        this.#state = "scanning";
        return this.#scan();
      case "scanning":
        return this.#scan();
      case "confirming":
        return this.#confirm();
    }
  }

  /** @returns {CropSquare[]} */
  #scan() {
    for (const square of this.#grid.splice(0, LOOKS_A_PICTURE)) {
      const { keypoints, presence } = this.#look.encode(square);
      const box = framingOf(fitLayout(keypoints), square);
      if (presence >= CLAIM_PRESENCE && this.#isUsable(box)) this.#claim(box, presence);
    }
    if (this.#grid.length === 0) this.#state = this.#claims.length > 0 ? "confirming" : "idle";
    return [];
  }

  /**
   * Keep the best claims. Of two claims for one face the better one stays.
   * @param {CropSquare} box
   * @param {number} presence
   */
  #claim(box, presence) {
    const others = this.#claims.filter((claim) => !isSameFace(claim.box, box));
    const same = this.#claims.filter((claim) => isSameFace(claim.box, box));
    const best = [...same, { box, presence, confirmed: 0, denied: 0, looks: 0 }].sort((a, b) => b.presence - a.presence)[0];
    this.#claims = [...others, best].sort((a, b) => b.presence - a.presence).slice(0, MOST_CLAIMS);
  }

  /** @returns {CropSquare[]} */
  #confirm() {
    for (const claim of this.#claims) this.#frame(claim);
    this.#claims = this.#claims.filter((claim) => this.#isKept(claim));
    if (!this.#claims.every(isConfirmed)) return [];
    this.#state = "idle";
    const boxes = this.#claims.map((claim) => claim.box).sort((a, b) => b.size - a.size);
    // Two claims may lead to one face.
    return boxes.filter((box, i) => !boxes.slice(0, i).some((larger) => isSameFace(larger, box)));
  }

  /**
   * Look at a claim and frame it again.
   * @param {Claim} claim
   */
  #frame(claim) {
    const square = nextLook(claim);
    const { keypoints, presence } = this.#look.encode(square);
    const fit = fitLayout(keypoints);
    const box = framingOf(fit, square);
    const { shift, growth } = changeOf(claim.box, box);
    const isSteady = shift <= MOST_SHIFT && growth <= MOST_GROWTH;
    const isFace = presence >= CONFIRMED_PRESENCE && fit.misfit <= MOST_MISFIT && isSteady;
    claim.box = box;
    claim.confirmed = isFace ? claim.confirmed + 1 : 0;
    claim.denied = isFace ? 0 : claim.denied + 1;
    claim.looks++;
  }

  /** @param {Claim} claim */
  #isKept(claim) {
    const isOpen = claim.denied < MOST_DENIALS && claim.looks < MOST_LOOKS;
    return (isOpen || isConfirmed(claim)) && this.#isUsable(claim.box);
  }

  /** @param {CropSquare} box */
  #isUsable(box) {
    return isUsable(box, this.#look.width, this.#look.height);
  }
}

/** @param {Claim} claim */
function isConfirmed({ confirmed }) {
  return confirmed >= CONFIRMING_LOOKS.length;
}

/**
 * The crop to look at next to confirm a claim.
 * @param {Claim} claim
 * @returns {CropSquare}
 */
function nextLook({ box, confirmed }) {
  const [right, down, growth] = CONFIRMING_LOOKS[confirmed % CONFIRMING_LOOKS.length];
  const [centreX, centreY] = [box.x + (0.5 + right) * box.size, box.y + (0.5 + down) * box.size];
  const size = growth * box.size;
  return { x: centreX - size / 2, y: centreY - size / 2, size };
}

/**
 * Whether two crops show the same face: their centres are closer than a third of the larger one.
 * @param {CropSquare} a
 * @param {CropSquare} b
 */
function isSameFace(a, b) {
  const apart = Math.hypot(a.x + a.size / 2 - b.x - b.size / 2, a.y + a.size / 2 - b.y - b.size / 2);
  return apart < Math.max(a.size, b.size) / 3;
}
