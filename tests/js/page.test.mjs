/** The pure parts of the page of a room, and its message files. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";

import { isRoomName, readAddress, readToken } from "../../clients/web/mien_web/room/entry.js";
import { isUploaded } from "../../clients/web/mien_web/room/gateway.js";
import { gridOf, inFocus, MOST_TILES, speakerLayout } from "../../clients/web/mien_web/room/layout.js";
import { SHORTCUTS, shortcutOf } from "../../clients/web/mien_web/room/menus.js";
import en from "../../clients/web/mien_web/room/messages/en.js";
import zh from "../../clients/web/mien_web/room/messages/zh.js";
import { deviceTrouble, overTrouble, refusal, uploadTrouble } from "../../clients/web/mien_web/room/trouble.js";
import { filled, languageFor } from "../../clients/web/mien_web/room/words.js";
import { initials } from "../../clients/web/mien_web/room/dom.js";
import { actionsOn } from "../../clients/web/mien_web/room/people.js";
import { wayOf } from "../../clients/web/mien_web/room/check.js";

const FOLDER = new URL("../../clients/web/mien_web/room/", import.meta.url);
const placeholders = (text) => (text.match(/\{\w+\}/g) ?? []).sort();

const STAGES = [[1344, 690], [374, 700], [980, 690], [844, 300], [320, 480]];

test("tiles of a grid lie inside the stage, do not overlap, and have one size", () => {
  for (const [width, height] of STAGES) {
    for (let count = 1; count <= MOST_TILES; count += 1) {
      const tiles = gridOf(count, width, height);
      assert.equal(tiles.length, count);
      for (const [number, tile] of tiles.entries()) {
        assert.ok(tile.x >= -1 && tile.x + tile.width <= width + 1, `${count} on ${width}x${height}`);
        assert.ok(tile.y >= -1 && tile.y + tile.height <= height + 1, `${count} on ${width}x${height}`);
        assert.ok(tile.width / tile.height > 0.75 && tile.width / tile.height < 1.85);
        assert.deepEqual([tile.width, tile.height], [tiles[0].width, tiles[0].height]);
        for (const other of tiles.slice(number + 1)) {
          const apart =
            tile.x + tile.width <= other.x || other.x + other.width <= tile.x ||
            tile.y + tile.height <= other.y || other.y + other.height <= tile.y;
          assert.ok(apart, `${count} on ${width}x${height}`);
        }
      }
    }
  }
});

test("a grid uses the shape of its stage", () => {
  const [left, right] = gridOf(2, 1344, 690);
  assert.equal(left.y, right.y);
  const [upper, lower] = gridOf(2, 374, 700);
  assert.equal(upper.x, lower.x);
  assert.ok(upper.width * upper.height * 2 > 0.8 * 374 * 700, "two people fill a phone");
  assert.deepEqual(gridOf(3, 0, 700), []);
  assert.deepEqual(gridOf(0, 100, 100), []);
});

test("the large tile is larger than the others, and the strip keeps off it", () => {
  for (const [width, height] of STAGES) {
    for (const count of [2, 3, 5, 12, 25]) {
      const { tiles, shown } = speakerLayout(count, width, height);
      assert.equal(tiles.length, shown);
      assert.ok(shown >= 2 && shown <= count);
      const [main, ...strip] = tiles;
      for (const tile of strip) {
        assert.ok(tile.width * tile.height < main.width * main.height);
        assert.ok(tile.x >= main.x + main.width || tile.y >= main.y + main.height);
        assert.ok(tile.x >= -1 && tile.x + tile.width <= width + 1);
        assert.ok(tile.y >= -1 && tile.y + tile.height <= height + 1);
      }
    }
  }
  assert.equal(speakerLayout(1, 1344, 690).tiles.length, 1);
});

test("the large tile shows who was chosen or speaks, and does not jump in pauses", () => {
  const room = { ids: ["ada", "bob", "me"], pinned: null, speakers: [], before: null, local: "me" };
  assert.equal(inFocus({ ...room, speakers: ["bob"] }), "bob");
  assert.equal(inFocus({ ...room, speakers: ["bob"], pinned: "ada" }), "ada");
  assert.equal(inFocus({ ...room, before: "bob" }), "bob");
  assert.equal(inFocus({ ...room, speakers: ["me"], before: "bob" }), "bob", "one does not look at oneself");
  assert.equal(inFocus({ ...room, pinned: "gone", before: "gone" }), "ada");
  assert.equal(inFocus({ ...room, ids: ["me"] }), "me");
  assert.equal(inFocus({ ...room, ids: [] }), null);
});

test("the address names the room, and its fragment has the token", () => {
  assert.deepEqual(readAddress({ pathname: "/room/demo", hash: "" }), { room: "demo", token: null });
  assert.deepEqual(readAddress({ pathname: "/room/a-b_1/", hash: "#token=x.y.z" }), { room: "a-b_1", token: "x.y.z" });
  assert.deepEqual(readAddress({ pathname: "/room/%E2%82%AC", hash: "#token=" }), { room: "€", token: null });
  assert.deepEqual(readAddress({ pathname: "/room/%zz", hash: "#" }), { room: "%zz", token: null });
  for (const [name, isGood] of [["demo", true], ["a".repeat(64), true], ["a".repeat(65), false], ["", false], ["a b", false]]) {
    assert.equal(isRoomName(name), isGood, name);
  }
});

test("a token names room and participant, another one nothing", () => {
  const token = (claims) => `x.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.x`;
  assert.deepEqual(readToken(token({ sub: "p?>", room: "r", exp: 5 })), { roomId: "r", participantId: "p?>", expiresAtS: 5 });
  for (const bad of [token({ sub: "session" }), token({ room: "r" }), "", "a", "a.b.c", "..", "a.bnVsbA.c"]) {
    assert.equal(readToken(bad), null, bad);
  }
});

test("uploaded pictures are told from bundled people by their ids", () => {
  const bundled = readdirSync(new URL("avatars/", FOLDER)).map((name) => name.replace(".webp", ""));
  assert.ok(bundled.length >= 4);
  for (const id of bundled) assert.equal(isUploaded(id), false, id);
  for (const id of ["p-0123456789abcdef0123-AbCdEfGhIjKlMnOp", "AbCdEfGhIjKlMnOp"]) assert.equal(isUploaded(id), true);
});

test("single keys do nothing while one writes, in dialogs, with other keys, or switched off", () => {
  const key = (/** @type {object} */ more) => ({ key: "m", ctrlKey: false, metaKey: false, altKey: false, ...more });
  const state = { isWriting: false, isDialogOpen: false, isOn: true };
  assert.equal(shortcutOf(key({}), state), "microphone");
  assert.equal(shortcutOf(key({ key: "M" }), state), "microphone");
  assert.equal(shortcutOf(key({ key: "?" }), state), "shortcuts");
  for (const more of [{ ctrlKey: true }, { metaKey: true }, { altKey: true }, { repeat: true }, { key: "x" }]) {
    assert.equal(shortcutOf(key(more), state), null);
  }
  for (const other of [{ isWriting: true }, { isDialogOpen: true }, { isOn: false }]) {
    assert.equal(shortcutOf(key({}), { ...state, ...other }), null);
  }
  assert.equal(new Set(Object.values(SHORTCUTS)).size, Object.keys(SHORTCUTS).length);
});

test("every failure has words and says what to do, in both languages", () => {
  const keys = new Set();
  for (const source of ["camera", "microphone"]) {
    for (const code of ["denied", "system-denied", "not-found", "in-use", "insecure", "failed"]) {
      const { title, text } = deviceTrouble({ code, source });
      keys.add(title).add(text);
    }
  }
  assert.deepEqual(deviceTrouble({ code: "news" }, "microphone").title, "trouble.microphone.failed");
  const reasons = ["left", "away", "removed", "replaced", "ended", "token", "no-token", "not-found", "bad-name", "full"];
  for (const reason of [...reasons, "locked", "busy", "flood", "unreachable", "refused", "unsupported", "what?"]) {
    const { title, text, again } = overTrouble(reason);
    keys.add(title).add(text);
    if (again !== null) keys.add(again);
  }
  for (const key of keys) for (const messages of [en, zh]) assert.ok(messages[key], key);
  assert.equal(overTrouble("removed").again, null, "who was removed is not invited to try again");
});

test("refusals of the service are told apart", () => {
  for (const [code, reason] of [
    ["room-full", "full"],
    ["room-locked", "locked"],
    ["full", "busy"],
    ["no-generator", "busy"],
    ["api-key-missing", "no-token"],
    ["token-invalid", "token"],
    ["room-not-found", "not-found"],
    ["removed", "removed"],
    ["ended", "ended"],
    ["something-new", "refused"],
  ]) {
    assert.equal(refusal(Object.assign(new Error("why"), { code })).reason, reason, code);
  }
  assert.equal(refusal(new TypeError("fetch failed")).reason, "unreachable");
  assert.deepEqual(refusal(Object.assign(new Error("why"), { code: "new" })), { reason: "refused", detail: "why" });
});

test("a refused picture has its own words, and others are quoted", () => {
  const has = (key) => key in en;
  const refused = (code) => uploadTrouble(Object.assign(new Error("why"), { code }), has);
  assert.deepEqual(refused("no-face"), { key: "upload.no-face", detail: "why" });
  assert.deepEqual(refused("news"), { key: "upload.failed", detail: "why" });
  assert.equal(uploadTrouble(new TypeError(""), has).key, "upload.offline");
  assert.equal(filled(en, "upload.failed", { detail: "why" }), "The picture was refused: why");
});

test("both languages have the same messages with the same values", () => {
  assert.deepEqual(Object.keys(zh).sort(), Object.keys(en).sort());
  for (const key of Object.keys(en)) {
    assert.deepEqual(placeholders(zh[key]), placeholders(en[key]), key);
    assert.ok(key.endsWith("quality.unknown") || (en[key] !== "" && zh[key] !== ""), key);
  }
});

test("every word that the page names is in the message files", () => {
  const html = readFileSync(new URL("index.html", FOLDER), "utf8");
  const named = new Set([...html.matchAll(/data-t(?:-\w+)?="([^"]+)"/g)].map((match) => match[1]));
  for (const file of readdirSync(FOLDER).filter((name) => name.endsWith(".js"))) {
    const source = readFileSync(new URL(file, FOLDER), "utf8");
    for (const match of source.matchAll(/\bt\("([^"]+)"/g)) named.add(match[1]);
  }
  assert.ok(named.size > 80);
  for (const key of named) assert.ok(key in en, key);
});

test("the language follows the browser, and the person", () => {
  assert.equal(languageFor(["zh-TW", "en"]), "zh");
  assert.equal(languageFor(["de-DE", "en-GB"]), "en");
  assert.equal(languageFor(["fr"]), "en");
  assert.equal(languageFor(["en"], "zh"), "zh");
  assert.equal(languageFor(["en"], "xx"), "en");
  assert.equal(filled(en, "chat.unread", { count: 1 }), "Chat, 1 unread message");
  assert.equal(filled(en, "chat.unread", { count: 2 }), "Chat, 2 unread messages");
  assert.equal(filled(en, "say.message", { name: "{text}", text: "$& <b>" }), "{text} wrote: $& <b>");
});

test("initials of names", () => {
  for (const [name, letters] of [["Ada Lovelace", "AL"], ["bob", "B"], ["李 明", "李明"], ["  ", ""], ["a b c", "AC"]]) {
    assert.equal(initials(name), letters);
  }
});

test("only moderators act, on others, and only where it changes something", () => {
  const other = { moderates: true, isLocal: false, isMuted: false, hand: true };
  assert.deepEqual(actionsOn(other), ["mute", "lower", "remove"]);
  assert.deepEqual(actionsOn({ ...other, isMuted: true, hand: false }), ["remove"]);
  assert.deepEqual(actionsOn({ ...other, isLocal: true }), []);
  assert.deepEqual(actionsOn({ ...other, moderates: false }), []);
});

test("the way of the media, in a word", () => {
  const stats = (local, remote, pair = {}) => [
    { id: "T", type: "transport", selectedCandidatePairId: "P" },
    { id: "P", type: "candidate-pair", localCandidateId: "L", remoteCandidateId: "R", currentRoundTripTime: 0.0124, ...pair },
    { id: "L", type: "local-candidate", candidateType: "host", protocol: "udp", ...local },
    { id: "R", type: "remote-candidate", candidateType: "host", protocol: "udp", ...remote },
  ];
  assert.deepEqual(wayOf(stats({}, {})), { way: "udp", ms: 12 });
  assert.deepEqual(wayOf(stats({ candidateType: "relay" }, {})), { way: "relay", ms: 12 });
  assert.deepEqual(wayOf(stats({}, { protocol: "tcp" })), { way: "tcp", ms: 12 });
  assert.equal(wayOf([]), null);
  const firefox = stats({}, {}, { nominated: true, state: "succeeded" }).slice(1);
  assert.deepEqual(wayOf(firefox), { way: "udp", ms: 12 }, "a browser without a transport's statistics");
});
