// @ts-check
/** The test before the room: microphone, speaker, connection. */

import { icon, make } from "./dom.js";
import { chosenDevice } from "./devices.js";
import { t } from "./words.js";

const LISTEN_MS = 5000;
const CONNECT_MS = 12_000;
/** A microphone that is on in a quiet room stays below this. */
const HEARD = 0.05;

/**
 * The way that media take, from the statistics of a connection. Pure.
 * @param {Iterable<any>} stats what RTCPeerConnection.getStats() holds
 * @returns {{way: "udp"|"tcp"|"relay", ms: number}|null} null: no way works yet
 */
export function wayOf(stats) {
  const all = [...stats];
  const found = (/** @type {string} */ id) => all.find((one) => one.id === id);
  const transport = all.find((one) => one.type === "transport" && one.selectedCandidatePairId);
  const pair =
    found(transport?.selectedCandidatePairId) ??
    all.find((one) => one.type === "candidate-pair" && one.nominated && one.state === "succeeded");
  if (pair === undefined) return null;
  const local = found(pair.localCandidateId);
  const remote = found(pair.remoteCandidateId);
  const ms = Math.round((pair.currentRoundTripTime ?? 0) * 1000);
  if (local?.candidateType === "relay" || remote?.candidateType === "relay") return { way: "relay", ms };
  return { way: local?.protocol === "tcp" || remote?.protocol === "tcp" ? "tcp" : "udp", ms };
}

/**
 * Run the test and show it line by line.
 * @param {HTMLElement} list
 * @param {{level: () => number, isMicrophoneOn: () => boolean, whepUrl: string|null, token: string}} what
 */
export async function runCheck(list, { level, isMicrophoneOn, whepUrl, token }) {
  list.replaceChildren();
  const line = (/** @type {string} */ key) => new Line(list, t(key));
  const microphone = line(isMicrophoneOn() ? "check.microphone" : "check.microphone.off");
  const connection = whepUrl === null ? null : line("check.connection");
  const [heard, way] = await Promise.all([
    isMicrophoneOn() ? listen(level) : null,
    whepUrl === null ? null : probe(whepUrl, token),
  ]);
  if (heard !== null) microphone.end(heard, t(heard ? "check.microphone.good" : "check.microphone.bad"));
  if (connection !== null) {
    const text = way === null ? t("check.connection.bad") : t(`check.connection.${way.way}`, { ms: way.ms });
    connection.end(way !== null, text);
  }
  const speaker = line("check.speaker");
  await playTones();
  const hears = await speaker.ask(t("check.speaker.yes"), t("check.speaker.no"));
  speaker.end(hears, t(hears ? "check.speaker.good" : "check.speaker.bad"));
}

class Line {
  #item;
  #text;

  /** @param {HTMLElement} list @param {string} text */
  constructor(list, text) {
    this.#text = make("span", {}, text);
    this.#item = make("li", {}, this.#text);
    list.append(this.#item);
  }

  /** @param {boolean} isGood @param {string} text */
  end(isGood, text) {
    this.#item.dataset.result = isGood ? "good" : "bad";
    this.#item.querySelector(".row")?.remove();
    this.#item.prepend(icon(isGood ? "check" : "warn"));
    this.#text.textContent = text;
  }

  /**
   * @param {string} yes
   * @param {string} no
   * @returns {Promise<boolean>}
   */
  ask(yes, no) {
    return new Promise((resolve) => {
      const button = (/** @type {string} */ word, /** @type {boolean} */ value) =>
        make("button", { class: "quiet", type: "button", onclick: () => resolve(value) }, word);
      this.#item.append(make("span", { class: "row" }, button(yes, true), button(no, false)));
    });
  }
}

/** @param {() => number} level */
async function listen(level) {
  const until = performance.now() + LISTEN_MS;
  while (performance.now() < until) {
    if (level() > HEARD) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

/** Three tones through the chosen speaker. */
async function playTones() {
  const context = new AudioContext();
  const speaker = chosenDevice("audiooutput");
  // @ts-ignore: not in every browser's AudioContext
  if (speaker !== undefined) await context.setSinkId?.(speaker).catch(() => {});
  const start = context.currentTime + 0.05;
  [523, 659, 784].forEach((pitch, number) => {
    const tone = new OscillatorNode(context, { frequency: pitch });
    const volume = new GainNode(context, { gain: 0 });
    const at = start + number * 0.3;
    volume.gain.setValueAtTime(0, at);
    volume.gain.linearRampToValueAtTime(0.2, at + 0.03);
    volume.gain.linearRampToValueAtTime(0, at + 0.27);
    tone.connect(volume).connect(context.destination);
    tone.start(at);
    tone.stop(at + 0.28);
  });
  await new Promise((resolve) => setTimeout(resolve, 1050));
  await context.close();
}

/**
 * Connect to one's own avatar, and see which way the pictures take.
 * @param {string} whepUrl
 * @param {string} token
 */
async function probe(whepUrl, token) {
  const [{ WhepClient }, { getIceServers }] = await Promise.all([import("../whep.js"), import("../api.js")]);
  const client = new WhepClient({ url: whepUrl, token, iceServers: await getIceServers(token) });
  client.start();
  try {
    const until = performance.now() + CONNECT_MS;
    while (performance.now() < until) {
      const way = client.peer === null ? null : wayOf((await client.peer.getStats()).values());
      if (way !== null && way.ms > 0) return way;
      if (way !== null && client.state === "connected" && performance.now() > until - CONNECT_MS + 4000) return way;
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
    return null;
  } finally {
    client.stop();
  }
}
