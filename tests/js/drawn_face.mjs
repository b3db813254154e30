// The face that drawn_face.py draws, pixel for pixel.

export const WIDTH = 640;
export const HEIGHT = 480;

const [SKIN, SHADE, HAIR, SHIRT] = [[224, 178, 150], [196, 146, 120], [70, 48, 38], [60, 70, 110]];
const [WHITE, IRIS, LIP, MOUTH] = [[244, 244, 240], [62, 84, 96], [176, 84, 84], [82, 30, 34]];

/** Whole quotient, towards minus infinity as in Python. */
const quotient = (a, b) => Math.floor(a / b);

/** What moves, in pixels: centre and height of the face, half the height of eyes and mouth, a turn to the right. */
export function pose(changes = {}) {
  return { x: 320, y: 240, height: 200, lids: 8, lips: 3, turn: 0, ...changes };
}

const WALL = new Uint8Array(4 * WIDTH * HEIGHT).fill(255);
for (let y = 0; y < HEIGHT; y++)
  for (let x = 0; x < WIDTH; x++)
    WALL.set([90 + quotient(x, 16), 110 + quotient(y, 12), 140 + quotient(x + y, 24)], 4 * (y * WIDTH + x));

/** 640 x 480 RGBA pixels; without a pose only the wall behind the face. */
export function draw(pose) {
  const pixels = WALL.slice();
  for (const part of pose === null ? [] : ellipses(pose)) fill(pixels, ...part);
  return pixels;
}

function fill(pixels, centreX, centreY, a, b, colour) {
  for (let y = Math.max(centreY - b, 0); y < Math.min(centreY + b + 1, HEIGHT); y++)
    for (let x = Math.max(centreX - a, 0); x < Math.min(centreX + a + 1, WIDTH); x++)
      if (((x - centreX) * b) ** 2 + ((y - centreY) * a) ** 2 <= (a * b) ** 2) pixels.set(colour, 4 * (y * WIDTH + x));
}

function ellipses({ x, y, height, lids, lips, turn }) {
  const u = (hundredths) => quotient(height * hundredths, 100);
  lids = Math.max(lids, 1);
  const parts = [
    [x, y + u(78), u(62), u(30), SHIRT],
    [x, y + u(46), u(17), u(22), SHADE],
    [x, y - u(10), u(42), u(50), HAIR],
    [x, y, u(36), u(50), SKIN],
    [x, y - u(44), u(34), u(16), HAIR],
    [x + turn + quotient(turn, 2), y + u(11), u(6), u(3), SHADE],
    [x + turn, y + u(26), u(13), u(3) + lips, LIP],
    [x + turn, y + u(26), u(10), Math.max(lips, 1), MOUTH],
  ];
  for (const eye of [x + turn - u(16), x + turn + u(16)]) {
    parts.push([eye, y - u(15), u(9), u(2), HAIR]);
    parts.push([eye, y - u(4), u(8), lids, WHITE]);
    parts.push([eye + quotient(turn, 2), y - u(4), Math.min(u(4), lids), lids, IRIS]);
  }
  return parts;
}

/** Pose of a frame of a performance at 30 frames a second: speech, blinks, turns, and from frame 90 on a walk. */
export function speaking(frame) {
  const lips = [0, 2, 5, 8, 6, 3, 1, 4, 7, 3][quotient(frame * 3, 4) % 10];
  const lids = [2, 1, 3][(frame % 40) - 30] ?? 8;
  const sway = Math.abs((frame % 60) - 30) - 15;
  const walk = Math.max(0, frame - 90) * 2;
  return pose({ x: 320 + quotient(sway, 2) + walk, y: 236 + quotient(sway, 3), lids, lips, turn: quotient(sway, 4) });
}
