// @ts-check
/** Where tiles lie. Pure: sizes in CSS pixels in, rectangles out. */

/** @typedef {{x: number, y: number, width: number, height: number}} Rectangle */

const GAP = 8;
/** Tiles between these shapes: an avatar's face is in the middle of its picture, so its sides may be cut off. */
const NARROWEST = 0.8;
const WIDEST = 16 / 9;

/** The most tiles of a grid; further people are counted in the last one. */
export const MOST_TILES = 25;

/**
 * The largest tile of an allowed shape inside a cell.
 * @param {number} width
 * @param {number} height
 */
function fitted(width, height) {
  const shape = Math.min(WIDEST, Math.max(NARROWEST, width / height));
  return width / height > shape ? { width: height * shape, height } : { width, height: width / shape };
}

/**
 * Tiles of one size in rows, as large as possible; the last row is centred.
 * @param {number} count
 * @param {number} width
 * @param {number} height
 * @returns {Rectangle[]}
 */
export function gridOf(count, width, height) {
  if (count < 1 || width < 1 || height < 1) return [];
  let best = { columns: 1, rows: count, tile: { width: 0, height: 0 } };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const tile = fitted((width - GAP * (columns - 1)) / columns, (height - GAP * (rows - 1)) / rows);
    if (tile.width > 0 && tile.width * tile.height > best.tile.width * best.tile.height) best = { columns, rows, tile };
  }
  const { columns, rows, tile } = best;
  const top = (height - rows * tile.height - (rows - 1) * GAP) / 2;
  return Array.from({ length: count }, (_, number) => {
    const row = Math.floor(number / columns);
    const inRow = Math.min(columns, count - row * columns);
    const left = (width - inRow * tile.width - (inRow - 1) * GAP) / 2;
    return {
      x: Math.round(left + (number % columns) * (tile.width + GAP)),
      y: Math.round(top + row * (tile.height + GAP)),
      width: Math.round(tile.width),
      height: Math.round(tile.height),
    };
  });
}

/**
 * The first tile large, the others in a strip: at the right of a wide stage, below on a tall one.
 * @param {number} count
 * @param {number} width
 * @param {number} height
 * @returns {{tiles: Rectangle[], shown: number}} shown: for how many there is a place
 */
export function speakerLayout(count, width, height) {
  if (count < 2) return { tiles: gridOf(count, width, height), shown: count };
  const isWide = width > height * 1.15;
  const strip = isWide ? Math.min(220, width * 0.2) : Math.min(120, height * 0.2);
  const tile = isWide
    ? { width: strip, height: strip / WIDEST }
    : { width: Math.min(strip * 1.2, (width - GAP) / 2), height: strip };
  const room = isWide ? height : width;
  const step = (isWide ? tile.height : tile.width) + GAP;
  const places = Math.max(1, Math.min(count - 1, Math.floor((room + GAP) / step)));
  const main = isWide ? fitted(width - strip - GAP, height) : fitted(width, height - strip - GAP);
  const stage = isWide ? { width: width - strip - GAP, height } : { width, height: height - strip - GAP };
  const start = (room - (places * step - GAP)) / 2;
  const tiles = [
    {
      x: Math.round((stage.width - main.width) / 2),
      y: Math.round((stage.height - main.height) / 2),
      width: Math.round(main.width),
      height: Math.round(main.height),
    },
  ];
  for (let number = 0; number < places; number += 1) {
    tiles.push({
      x: Math.round(isWide ? width - strip : start + number * step),
      y: Math.round(isWide ? start + number * step : height - strip),
      width: Math.round(tile.width),
      height: Math.round(tile.height),
    });
  }
  return { tiles, shown: places + 1 };
}

/**
 * Whom the large tile shows: who was chosen, or who speaks; else it stays, so that it does not jump at each word.
 * @param {{ids: string[], pinned: string|null, speakers: string[], before: string|null, local: string|null}} what
 *   ids: of everyone, in their order; speakers: the loudest first
 * @returns {string|null}
 */
export function inFocus({ ids, pinned, speakers, before, local }) {
  if (pinned !== null && ids.includes(pinned)) return pinned;
  const speaker = speakers.find((id) => id !== local && ids.includes(id));
  if (speaker !== undefined) return speaker;
  if (before !== null && before !== local && ids.includes(before)) return before;
  return ids.find((id) => id !== local) ?? ids[0] ?? null;
}
