// The room's pure parts: state from events, what ends a connection, pauses, levels and statistics.

import assert from "node:assert/strict";
import { test } from "node:test";

import { deviceError } from "../../clients/js/media/devices.js";
import { meterLevel } from "../../clients/js/media/level_meter.js";
import { SILENT_MS, SilenceWatch } from "../../clients/js/media/silence.js";
import { participantStats, qualityOf, readReport } from "../../clients/js/media/statistics.js";
import { backoffMs, parseRetryAfterMs } from "../../clients/js/network/backoff.js";
import { finalClose, finalRefusal } from "../../clients/js/network/close_codes.js";
import { Gateway, MienError, readToken } from "../../clients/js/network/gateway.js";
import { retryDelayMs } from "../../clients/js/network/peer_link.js";
import { areAllAddresses, candidateFragment, iceServersOf, idOf, parseIceServerLinks } from "../../clients/js/network/sdp.js";
import { planRetry } from "../../clients/web/mien_web/whep.js";
import { Emitter } from "../../clients/js/room/emitter.js";
import { RoomState } from "../../clients/js/room/room_state.js";

const ROOM = { room_id: "r1", name: "standup", locked: false, lobby: false, metadata: "", max_participants: 8 };
const CONNECTION = { whip_url: "http://s/whip", whep_url: "http://s/whep", uplink_url: null, ice_servers: [] };

const person = (id, given = {}) => ({
  participant_id: id,
  identity: `${id}@home`,
  name: id,
  state: "active",
  grants: ["publish", "watch"],
  muted: false,
  hand: false,
  avatar_id: "mien",
  session_id: `s-${id}`,
  whep_url: `http://s/v1/whep/s-${id}`,
  ...given,
});
const whole = (people, given = {}) => ({
  type: "room",
  sequence: 10,
  room: ROOM,
  participants: people,
  participant_id: "ada",
  connection: CONNECTION,
  ...given,
});
const names = (changes) => changes.map(({ what, info }) => (info ? `${what} ${info.participant_id}` : what));

function entered(...people) {
  const state = new RoomState();
  state.apply(whole([person("ada"), ...people]));
  return state;
}

test("the first state names everyone, then says that it is complete", () => {
  const state = new RoomState();
  assert.deepEqual(names(state.apply(whole([person("ada"), person("bob")]))), ["joined ada", "joined bob", "entered"]);
  assert.equal(state.local.participant_id, "ada");
  assert.equal(state.sequence, 10);
  assert.deepEqual(state.connection, CONNECTION);
});

test("a whole state after a gap tells the difference, and only that", () => {
  const state = entered(person("bob"), person("eve"));
  const again = whole([person("ada"), person("eve", { hand: true }), person("zoe")], { room: { ...ROOM, locked: true } });
  assert.deepEqual(names(state.apply(again)), ["left bob", "changed eve", "joined zoe", "roomChanged", "resumed"]);
  assert.deepEqual(names(state.apply(again)), ["resumed"]);
  assert.deepEqual([...state.participants.keys()], ["ada", "eve", "zoe"]);
});

test("people come, change and go; what is not known is not reported", () => {
  const state = entered();
  const joined = { type: "participant_joined", sequence: 11, participant: person("bob") };
  assert.deepEqual(names(state.apply(joined)), ["joined bob"]);
  assert.deepEqual(names(state.apply(joined)), []);
  const updated = { type: "participant_updated", sequence: 12, participant: person("bob", { muted: true }) };
  const [change] = state.apply(updated);
  assert.deepEqual([change.what, change.before.muted, change.info.muted], ["changed", false, true]);
  // An update may name one that is not known (docs/conference.md).
  assert.deepEqual(names(state.apply({ ...updated, participant: person("eve") })), ["joined eve"]);
  const left = { type: "participant_left", sequence: 13, participant_id: "bob", reason: "removed" };
  assert.deepEqual(state.apply(left).map(({ what, reason }) => [what, reason]), [["left", "removed"]]);
  assert.deepEqual(state.apply(left), []);
  assert.equal(state.sequence, 13);
});

test("one who waits in the lobby knocks, and joins when let in", () => {
  const state = entered();
  const waits = { type: "participant_waiting", sequence: 11, participant: person("bob", { state: "waiting" }) };
  assert.deepEqual(names(state.apply(waits)), ["knocked bob"]);
  const joins = { type: "participant_joined", sequence: 12, participant: person("bob") };
  assert.deepEqual(names(state.apply(joins)), ["joined bob"]);
});

test("in the lobby only the own id is known", () => {
  const state = new RoomState();
  assert.deepEqual(names(state.apply({ type: "waiting", participant_id: "ada" })), ["waiting"]);
  assert.deepEqual([state.localId, state.local, state.sequence], ["ada", null, null]);
});

test("speakers and slots are states without numbers; speakers who leave are none", () => {
  const state = entered(person("bob"));
  state.apply({ type: "active_speakers", speakers: [{ participant_id: "bob", level: 0.5 }] });
  const slots = [{ slot: 0, video_mid: "0", audio_mid: "1", participant_id: "bob" }];
  assert.deepEqual(names(state.apply({ type: "slots", viewer_id: "v1", slots })), ["slots"]);
  assert.deepEqual([state.sequence, state.slots.viewerId], [10, "v1"]);
  state.apply({ type: "participant_left", sequence: 11, participant_id: "bob" });
  assert.deepEqual(state.speakers, []);
});

test("events of unknown types are ignored", () => {
  const state = entered();
  assert.deepEqual(state.apply({ type: "weather", sequence: 11 }), []);
  assert.equal(state.sequence, 11);
});

test("messages, reactions and refusals", () => {
  const state = entered();
  assert.deepEqual(state.apply({ type: "message", sequence: 11, participant_id: "bob", text: "hello" }), [
    { what: "message", participantId: "bob", text: "hello", sequence: 11 },
  ]);
  assert.deepEqual(state.apply({ type: "reaction", sequence: 12, participant_id: "bob", reaction: "nod" }), [
    { what: "reaction", participantId: "bob", reaction: "nod", sequence: 12 },
  ]);
  assert.deepEqual(state.apply({ type: "error", code: "too-many-requests", detail: "at most 5" }), [
    { what: "refused", code: "too-many-requests", detail: "at most 5" },
  ]);
  assert.equal(state.sequence, 12);
});

test("close codes that end a room, and those after which a client comes back", () => {
  const codes = Object.fromEntries([1008, 4401, 4403, 4409, 4410, 4411].map((code) => [code, finalClose(code).code]));
  const expected = { 1008: "flood", 4401: "token", 4403: "removed", 4409: "replaced", 4410: "ended", 4411: "left" };
  assert.deepEqual(codes, expected);
  for (const code of [1000, 1005, 1006, 1009, 1011, 1012, 4408, 4999]) assert.equal(finalClose(code), null);
});

test("refusals that end a room, and those after which a client comes back", () => {
  const meaning = (status, code) => finalRefusal(new MienError(status, code, "because"))?.code ?? null;
  assert.equal(meaning(401, "token-invalid"), "token");
  assert.equal(meaning(403, "token-not-granted"), "refused");
  assert.equal(meaning(403, "not-admitted"), null);
  assert.equal(meaning(404, "room-not-found"), "ended");
  assert.equal(meaning(404, "participant-not-found"), "left");
  for (const status of [429, 500, 502, 503]) assert.equal(meaning(status, ""), null);
});

test("pauses grow to a limit, and are spread", () => {
  const bounds = { firstMs: 100, limitMs: 1000 };
  const longest = [0, 1, 2, 3, 4, 50].map((failures) => backoffMs(failures, bounds, () => 1));
  assert.deepEqual(longest, [100, 200, 400, 800, 1000, 1000]);
  assert.equal(backoffMs(2, bounds, () => 0), 200);
});

test("a connection tries again, when the server asks it to, but not with an offer that is refused", () => {
  assert.equal(retryDelayMs(new Error("lost"), 0, () => 1), 500);
  assert.equal(retryDelayMs(new Error("lost"), 20, () => 1), 15_000);
  assert.equal(retryDelayMs(new MienError(503, "full", "", 4000), 0, () => 0), 4000);
  assert.equal(retryDelayMs(new MienError(409, "no-publication", ""), 0, () => 1), 500);
  assert.equal(retryDelayMs(new MienError(422, "unacceptable-offer", ""), 0), null);
  assert.equal(parseRetryAfterMs("7", 0), 7000);
  assert.equal(parseRetryAfterMs("Thu, 01 Jan 1970 00:00:09 GMT", 4000), 5000);
  assert.equal(parseRetryAfterMs("Thu, 01 Jan 1970 00:00:00 GMT", 4000), 0);
  assert.equal(parseRetryAfterMs("soon", 0), null);
  assert.equal(parseRetryAfterMs(null, 0), null);
});

test("the watch page says why it waits, and when it gives up", () => {
  const plans = [
    [401, null, "denied", null],
    [403, null, "denied", null],
    [404, null, "ended", null],
    [409, null, "waiting", 2000],
    [409, 1000, "waiting", 1100],
    [422, null, "failed", null],
    [429, 5000, "busy", 5500],
    [503, null, "busy", 750],
    [503, 3_600_000, "busy", 66_000],
    [500, null, "reconnecting", 375],
  ];
  for (const [status, retryAfterMs, state, delayMs] of plans) {
    const plan = planRetry(new MienError(status, "", "", retryAfterMs), 0, () => 0.5);
    assert.deepEqual(plan, { state, delayMs }, `${status}`);
  }
});

const claims = (value) => `x.${Buffer.from(JSON.stringify(value)).toString("base64url")}.y`;

test("a token names room and participant; others are refused by name", () => {
  assert.deepEqual(readToken(claims({ sub: "ada-é?>", room: "r1" })), { roomId: "r1", participantId: "ada-Ã©?>" });
  assert.throws(() => readToken("hello"), /not a JSON Web Token/);
  assert.throws(() => readToken(claims({ sub: "s1" })), /names no room/);
});

test("addresses of a gateway behind a path, with and without its slash", () => {
  for (const base of ["https://meet.example/mien", "https://meet.example/mien/"]) {
    const gateway = new Gateway(base, claims({ sub: "ada", room: "r1" }));
    assert.equal(gateway.eventsUrl(null), "wss://meet.example/mien/v1/rooms/r1/events");
    assert.equal(gateway.eventsUrl(7), "wss://meet.example/mien/v1/rooms/r1/events?since=7");
    assert.equal(gateway.uplinkUrl("s1"), "wss://meet.example/mien/v1/sessions/s1/uplink");
  }
});

test("a candidates' fragment names the first section of a bundle", () => {
  const offer = "v=0\r\nm=video 9 X 96\r\na=mid:0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\nm=audio 9 X 111\r\na=mid:1\r\n";
  assert.equal(
    candidateFragment(offer, ["candidate:1 1 udp 1 10.0.0.1 5 typ host"], true),
    "a=ice-ufrag:u\r\na=ice-pwd:p\r\nm=video 9 X 96\r\na=mid:0\r\n" +
      "a=candidate:1 1 udp 1 10.0.0.1 5 typ host\r\na=end-of-candidates\r\n",
  );
  assert.ok(areAllAddresses(["candidate:1 1 udp 1 10.0.0.1 5 typ host"]));
  assert.ok(!areAllAddresses(["candidate:1 1 udp 1 a-b.local 5 typ host"]));
  assert.ok(!areAllAddresses(["candidate:1 1 udp 1 10.0.0.1 5 typ host", "candidate:2 1 udp 1 a-b.local 5 typ host"]));
  assert.ok(!areAllAddresses([]));
});

test("ICE servers of a Link header, and the id in a Location", () => {
  const header = '<stun:s.example>; rel="ice-server", <turn:t.example?transport=udp>; rel="ice-server"; username="u"; ' +
    'credential="c\\"d", <http://x>; rel="next"';
  assert.deepEqual(parseIceServerLinks(header), [
    { urls: "stun:s.example" },
    { urls: "turn:t.example?transport=udp", username: "u", credential: 'c"d' },
  ]);
  assert.deepEqual(parseIceServerLinks(null), []);
  const named = [{ urls: ["stun:s"], username: null, credential: null }, { urls: "turn:t", username: "u", credential: "c" }];
  assert.deepEqual(iceServersOf(named), [{ urls: ["stun:s"] }, { urls: "turn:t", username: "u", credential: "c" }]);
  assert.equal(idOf("https://s.example/v1/whep/rooms/r1/abc?x=1"), "abc");
});

test("errors of devices have names", () => {
  const codeOf = (name, message = "") => deviceError(Object.assign(new Error(message), { name }), "camera").code;
  assert.equal(codeOf("NotAllowedError", "Permission denied"), "denied");
  assert.equal(codeOf("NotAllowedError", "Permission denied by system"), "system-denied");
  assert.equal(codeOf("NotFoundError"), "not-found");
  assert.equal(codeOf("OverconstrainedError"), "not-found");
  assert.equal(codeOf("NotReadableError"), "in-use");
  assert.equal(codeOf("TypeError"), "failed");
  assert.equal(deviceError("odd", "microphone").source, "microphone");
});

test("a silent microphone is told once for each silence", () => {
  const watch = new SilenceWatch();
  const told = [];
  for (let ms = 0; ms <= 3 * SILENT_MS; ms += 100) if (watch.push(0, ms)) told.push(ms);
  assert.deepEqual(told, [SILENT_MS]);
  assert.ok(!watch.push(0.01, 16_000));
  assert.ok(!watch.push(0, 16_100));
  assert.ok(watch.push(0, 16_100 + SILENT_MS));
});

test("the meter's ends", () => {
  assert.deepEqual([0, 1, 1e-3].map(meterLevel), [0, 1, 0]);
  assert.ok(Math.abs(meterLevel(10 ** (-35 / 20)) - 0.5) < 1e-9);
});

const NTP = 2_208_988_800_000;

function reading(atMs, given) {
  const entries = [
    { id: "T", type: "transport", bytesSent: 0, selectedCandidatePairId: "P" },
    { id: "P", type: "candidate-pair", currentRoundTripTime: 0.02, localCandidateId: "L" },
    { id: "L", type: "local-candidate", candidateType: "host", protocol: "udp" },
    { id: "V", type: "inbound-rtp", kind: "video", mid: "0", ...given.video },
    { id: "A", type: "inbound-rtp", kind: "audio", mid: "1", ...given.audio },
  ];
  return readReport(new Map(entries.map((one) => [one.id, one])), atMs);
}

test("counters become rates, latency and the offset of voice and lips", () => {
  const atMs = 1_800_000_000_000;
  const before = reading(atMs - 2000, {
    video: { bytesReceived: 1000, packetsReceived: 10, packetsLost: 0, framesDecoded: 5 },
    audio: { bytesReceived: 500, packetsReceived: 50, packetsLost: 1 },
  });
  const now = reading(atMs, {
    video: {
      bytesReceived: 251_000, packetsReceived: 200, packetsLost: 10, framesDecoded: 65,
      estimatedPlayoutTimestamp: atMs + NTP - 80,
    },
    audio: {
      bytesReceived: 500, packetsReceived: 50, packetsLost: 1, audioLevel: 0.25,
      estimatedPlayoutTimestamp: atMs + NTP - 60,
    },
  });
  const stats = participantStats(before, now, "0", "1");
  assert.deepEqual(stats, {
    fps: 30, kbitS: 1000, latencyMs: 80, voiceLevel: 0.25, avOffsetMs: 20, packetLoss: 0.05, frozenS: 0,
  });
  assert.deepEqual([now.transport, now.roundTripMs], ["udp", 20]);
  const nobody = participantStats(before, now, "7", null);
  assert.deepEqual([nobody.fps, nobody.latencyMs, nobody.avOffsetMs, nobody.packetLoss], [null, null, null, null]);
});

test("a latency that only differing clocks explain is not told", () => {
  const video = { estimatedPlayoutTimestamp: 1_800_000_000_000 + NTP + 500 };
  const now = reading(1_800_000_000_000, { video, audio: {} });
  assert.equal(participantStats(now, now, "0", "1").latencyMs, null);
});

test("quality in words", () => {
  const quality = (given) => qualityOf({ packetLoss: 0, roundTripMs: 20, kbitS: 500, ...given });
  assert.equal(quality({}), "excellent");
  assert.equal(quality({ packetLoss: 0.05 }), "good");
  assert.equal(quality({ roundTripMs: 300 }), "good");
  assert.equal(quality({ packetLoss: 0.2 }), "poor");
  assert.equal(quality({ frozenS: 1.5 }), "poor");
  assert.equal(quality({ kbitS: 0 }), "lost");
  assert.equal(quality({ packetLoss: null, roundTripMs: null }), "unknown");
});

test("a listener that throws does not keep others from an event", (context) => {
  context.mock.method(console, "error", () => {});
  const heard = [];
  const emitter = new Emitter();
  const off = () => heard.push("off");
  emitter.on("x", () => { throw new Error("no"); }).on("x", (value) => heard.push(value)).on("x", off).off("x", off);
  emitter.once("x", () => heard.push("once"));
  emitter.emit("x", 1);
  emitter.emit("x", 2);
  assert.deepEqual(heard, [1, "once", 2]);
});
