// @ts-check
/**
 * `window.mien`: what tests and the curious read.
 * @import { Room } from "../client/index.js"
 */

/**
 * @typedef {{identity: string, fps: number, latencyMs: number|null, voiceLevel: number, avOffsetMs: number|null}} Figures
 */

const EMPTY = Object.freeze({ fps: 0, uplinkKbitS: 0 });

/** @type {{state: string, participants: Figures[], localParticipant: {fps: number, uplinkKbitS: number}}} */
const shown = { state: "loading", participants: [], localParticipant: EMPTY };

Object.defineProperty(window, "mien", {
  value: Object.freeze({
    get state() {
      return shown.state;
    },
    get participants() {
      return shown.participants;
    },
    get localParticipant() {
      return shown.localParticipant;
    },
  }),
});

/** @param {string} state loading, join, waiting, connected, reconnecting or over */
export function tellState(state) {
  shown.state = state;
  if (state === "connected" || state === "reconnecting") return;
  shown.participants = [];
  shown.localParticipant = EMPTY;
}

/** @param {Room} room */
export async function tellFigures(room) {
  const { participants, local } = await room.getStats();
  shown.participants = [...room.remoteParticipants.values()].map(({ id, identity }) => {
    const { fps, latencyMs, voiceLevel, avOffsetMs } = { ...participants[id] };
    return { identity, fps: fps ?? 0, latencyMs: latencyMs ?? null, voiceLevel: voiceLevel ?? 0, avOffsetMs: avOffsetMs ?? null };
  });
  shown.localParticipant = { fps: local.fps ?? 0, uplinkKbitS: local.uplinkKbitS ?? 0 };
}
