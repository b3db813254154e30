// @ts-check
/**
 * The meeting: what happens in the room comes to the stage, the panels and the toolbar; what one does goes to the room.
 * @import { Room, Participant } from "../client/index.js"
 * @import { Entry } from "./entry.js"
 */

import { REACTIONS } from "../client/index.js";
import { Chat } from "./chat.js";
import { chosenDevice } from "./devices.js";
import { byId, dress, icon, make } from "./dom.js";
import { rememberAvatar } from "./entry.js";
import { tellFigures, tellState } from "./figures.js";
import { kept } from "./join.js";
import { isWritingIn, popover, shortcutOf } from "./menus.js";
import { banner, say, toast } from "./notices.js";
import { People } from "./people.js";
import { showSettings } from "./settings.js";
import { areShortcutsOn, showShortcuts } from "./shortcuts.js";
import { Stage } from "./stage.js";
import { dressToolbar } from "./toolbar.js";
import { deviceTrouble } from "./trouble.js";
import { t } from "./words.js";

const FIGURES_MS = 1000;

export class Meeting {
  #room;
  #entry;
  #onLeave;
  #stage;
  #people;
  #chat;
  #unread = 0;
  /** @type {"chat"|"people"|null} */
  #panel = null;
  /** @type {HTMLElement|null} */
  #opener = null;
  #timer = 0;
  #saidMuted = true;
  #hadHand = false;
  #stopMenus = () => {};
  #onKey = (/** @type {KeyboardEvent} */ event) => this.#key(event);
  #onFullscreen = () => this.#moreMenu();
  /** @type {Record<string, () => void>} */
  #actions = {
    microphone: () => void this.#toggle("microphone"),
    camera: () => void this.#toggle("camera"),
    hand: () => this.#hand(),
    reactions: () => byId("reactions").click(),
    chat: () => this.#open("chat"),
    people: () => this.#open("people"),
    layout: () => this.#switchLayout(),
    fullscreen: () => void this.#fullscreen(),
    shortcuts: () => showShortcuts(),
  };

  /**
   * @param {Room} room connected
   * @param {Entry} entry
   * @param {() => void} onLeave
   */
  constructor(room, entry, onLeave) {
    this.#room = room;
    this.#entry = entry;
    this.#onLeave = onLeave;
    const token = () => this.#entry.token;
    this.#stage = new Stage(room, token);
    const link = entry.isDemo ? location.href : null;
    this.#people = new People(room, token, { link });
    this.#chat = new Chat((text) => this.#write(text), (unread) => ((this.#unread = unread), this.#buttons()));
    this.#toolbar();
    this.#listen();
    this.render();
    this.#timer = window.setInterval(() => void tellFigures(room).catch(() => {}), FIGURES_MS);
    document.addEventListener("keydown", this.#onKey);
    document.addEventListener("fullscreenchange", this.#onFullscreen);
    byId("stage").addEventListener("layout", () => this.#layoutButton());
    if (!room.canPlaybackAudio) this.#audio(false);
    const speaker = chosenDevice("audiooutput");
    if (speaker !== undefined) void room.switchActiveDevice("audiooutput", speaker);
  }

  /** Everything again: somebody came, left or changed, or the language has. */
  render() {
    const room = this.#room;
    const shown = room.name ?? this.#entry.roomName ?? t("room.unnamed");
    byId("room-name").textContent = shown;
    document.title = t("title", { room: shown });
    byId("room-locked").hidden = !room.locked;
    this.#stage.update();
    if (this.#panel === "people") this.#people.render();
    this.#buttons();
    this.#quality();
    this.#layoutButton();
    this.#panelTitle();
    this.#knocks();
  }

  close() {
    window.clearInterval(this.#timer);
    this.#stopMenus();
    document.removeEventListener("keydown", this.#onKey);
    document.removeEventListener("fullscreenchange", this.#onFullscreen);
    if (document.fullscreenElement !== null) void document.exitFullscreen();
    if (document.pictureInPictureElement !== null) void document.exitPictureInPicture();
    for (const dialog of document.querySelectorAll("dialog[open]")) /** @type {HTMLDialogElement} */ (dialog).close();
    for (const name of ["reconnecting", "audio", "silent", "device"]) banner(name, null);
    byId("panel").hidden = true;
    this.#stage.close();
  }

  #listen() {
    const room = this.#room;
    const name = (/** @type {Participant} */ one) => ({ name: one.name });
    room.on("participantConnected", (one) => (say(t("say.joined", name(one))), this.render()));
    room.on("participantDisconnected", (one) => (say(t("say.left", name(one))), this.render()));
    room.on("participantUpdated", (one) => this.#changed(one));
    room.on("participantWaiting", () => this.render());
    for (const event of /** @type {const} */ (["trackSubscribed", "trackUnsubscribed", "trackMuted", "trackUnmuted"])) {
      room.on(event, () => this.render());
    }
    room.on("activeSpeakersChanged", () => this.#stage.speak());
    room.on("chatMessage", (message) => this.#said(message));
    room.on("reactionReceived", ({ participant, reaction }) => {
      if (participant === null || !REACTIONS.includes(reaction)) return;
      this.#stage.react(participant.id, reaction);
      if (!participant.isLocal) say(t("say.reaction", { ...name(participant), reaction: t(`reaction.${reaction}`) }));
    });
    room.on("roomUpdated", () => {
      say(t(room.locked ? "say.locked" : "say.unlocked"));
      this.render();
    });
    room.on("connectionQualityChanged", () => this.render());
    room.on("reconnecting", () => (tellState("reconnecting"), banner("reconnecting", { text: t("banner.reconnecting") })));
    room.on("reconnected", () => {
      tellState("connected");
      banner("reconnecting", null);
      say(t("say.reconnected"));
      this.render();
    });
    room.on("audioPlaybackStatusChanged", (canPlay) => this.#audio(canPlay));
    room.on("mediaDevicesError", (error) => this.#deviceTrouble(error));
    room.on("localTrackPublished", () => (banner("device", null), banner("silent", null), this.render()));
    room.on("localTrackUnpublished", () => (banner("silent", null), this.render()));
    room.on("silentMicrophone", () => {
      const action = { label: t("banner.silent.do"), run: () => this.#settings() };
      banner("silent", { text: t("banner.silent"), action });
      say(t("banner.silent"));
    });
    room.on("messageRefused", (_, detail) => toast(t("say.refused", { detail })));
  }

  /** Tell of those in the lobby, once each: some have waited there before one came. */
  #knocks() {
    const room = this.#room;
    for (const one of room.waitingParticipants.values()) {
      if (this.#announced.has(one.id)) continue;
      this.#announced.add(one.id);
      const admit = { label: t("lobby.admit"), run: () => void room.admit(one).catch(() => {}) };
      toast(t("say.waiting", { name: one.name }), admit);
    }
  }

  /** @type {Set<string>} */
  #announced = new Set();

  /** @param {Participant} one */
  #changed(one) {
    if (one.isLocal) {
      const { isMuted, hand } = one;
      const isOn = this.#room.localParticipant?.isMicrophoneEnabled ?? false;
      if (isMuted && !this.#saidMuted && !isOn) toast(t("say.muted-you"));
      if (this.#hadHand && !hand) toast(t("say.lowered-you"));
      this.#saidMuted = isMuted;
      this.#hadHand = hand;
    } else if (one.hand && !this.#hands.has(one.id)) {
      toast(t("say.hand", { name: one.name }));
    }
    if (one.hand) this.#hands.add(one.id);
    else this.#hands.delete(one.id);
    this.render();
  }

  /** Whose hand was raised when it was last said. @type {Set<string>} */
  #hands = new Set();

  // What one does

  /** @param {"camera"|"microphone"} what */
  async #toggle(what) {
    const local = this.#room.localParticipant;
    if (local === null || !local.grants.includes("publish") || local.avatarId === null) return;
    const isOn = what === "camera" ? local.isCameraEnabled : local.isMicrophoneEnabled;
    if (what === "microphone") this.#saidMuted = true; // one's own doing needs no notice
    try {
      if (what === "camera") await local.setCameraEnabled(!isOn);
      else await local.setMicrophoneEnabled(!isOn);
      say(t(`say.${what}.${isOn ? "off" : "on"}`));
    } catch {
      // the event mediaDevicesError has shown it
    }
    if (what === "microphone") this.#saidMuted = !local.isMicrophoneEnabled;
    kept.write({ camera: local.isCameraEnabled, microphone: local.isMicrophoneEnabled });
    this.render();
  }

  #hand() {
    const local = this.#room.localParticipant;
    if (local === null) return;
    this.#hadHand = false; // one's own doing needs no notice
    this.#try(() => local.setHand(!local.hand));
    say(t(local.hand ? "say.hand.down" : "say.hand.up"));
  }

  /** @param {string} text */
  #write(text) {
    return this.#try(() => this.#room.sendMessage(text));
  }

  /** @param {() => void} action @returns {boolean} whether it was sent */
  #try(action) {
    try {
      action();
      return true;
    } catch (error) {
      toast(t("say.refused", { detail: error instanceof Error ? error.message : "" }));
      return false;
    }
  }

  /** @param {import("../client/room/room_event.js").ChatMessage} message */
  #said({ participant, participantId, text }) {
    const author = participant?.name ?? "…";
    this.#chat.add({ id: participantId, name: participant?.isLocal ? t("you") : author, text });
    if (!this.#chat.isOpen && !participant?.isLocal) say(t("say.message", { name: author, text }));
  }

  #switchLayout() {
    this.#stage.setLayout(this.#stage.layout === "grid" ? "speaker" : "grid");
    this.#layoutButton();
  }

  async #fullscreen() {
    if (document.fullscreenElement !== null) await document.exitFullscreen();
    else await byId("meeting").requestFullscreen?.().catch(() => {});
  }

  async #pip() {
    if (document.pictureInPictureElement !== null) await document.exitPictureInPicture();
    else await this.#stage.focusVideo?.requestPictureInPicture().catch(() => {});
  }

  // What is shown

  #toolbar() {
    for (const name of ["microphone", "camera", "hand"]) byId(name).onclick = this.#actions[name];
    byId("chat-button").onclick = () => this.#open("chat");
    byId("people-button").onclick = () => this.#open("people");
    byId("panel-close").onclick = () => this.#open(null);
    byId("layout").onclick = () => this.#switchLayout();
    byId("leave").onclick = () => this.#onLeave();
    const menu = popover(byId("reactions"), byId("reaction-menu"));
    byId("reaction-menu").replaceChildren(
      ...REACTIONS.map((reaction) => {
        const react = () => {
          menu.close();
          byId("reactions").focus();
          this.#try(() => this.#room.react(reaction));
        };
        const button = make("button", { type: "button", role: "menuitem", onclick: react }, icon(reaction));
        button.dataset.reaction = reaction;
        return button;
      }),
    );
    this.#more = popover(byId("more"), byId("more-menu"));
  }

  #more = { close: () => {} };

  #moreMenu() {
    const entry = (/** @type {string} */ picture, /** @type {string} */ label, /** @type {() => void} */ run) =>
      make("button", { type: "button", role: "menuitem", onclick: () => (this.#more.close(), run()) }, icon(picture), label);
    const isFull = document.fullscreenElement !== null;
    const full = entry("full", t(isFull ? "fullscreen.exit" : "fullscreen"), () => void this.#fullscreen());
    full.hidden = !document.fullscreenEnabled;
    const pip = entry("pip", t("pip"), () => void this.#pip());
    pip.hidden = !document.pictureInPictureEnabled;
    byId("more-menu").replaceChildren(
      entry("gear", t("settings"), () => this.#settings()),
      pip,
      full,
      entry("keys", t("shortcuts"), () => showShortcuts()),
    );
  }

  #buttons() {
    dressToolbar(this.#room, { panel: this.#panel, unread: this.#unread });
    this.#moreMenu();
  }

  #quality() {
    const quality = this.#room.localParticipant?.connectionQuality ?? "unknown";
    byId("quality").dataset.quality = quality;
    byId("quality").hidden = quality === "unknown";
    byId("quality-text").textContent = t(`quality.${quality}`);
  }

  #layoutButton() {
    const isGrid = this.#stage.layout === "grid";
    dress(byId("layout"), isGrid ? "speaker-view" : "grid", t(isGrid ? "layout.speaker" : "layout.grid"), { shortcut: "g" });
  }

  /** @param {"chat"|"people"|null} panel the one that is open already closes */
  #open(panel) {
    this.#panel = panel === this.#panel ? null : panel;
    byId("panel").hidden = this.#panel === null;
    byId("chat").hidden = this.#panel !== "chat";
    byId("people").hidden = this.#panel !== "people";
    for (const name of ["chat", "people"]) {
      byId(`${name}-button`).setAttribute("aria-expanded", String(this.#panel === name));
    }
    this.#panelTitle();
    this.#buttons();
    if (this.#panel === "people") this.#people.render();
    if (this.#panel === "chat") this.#chat.read();
    else if (this.#panel === "people") byId("panel-close").focus();
    else this.#opener?.focus();
    this.#opener = this.#panel === null ? null : byId(`${this.#panel}-button`);
  }

  #panelTitle() {
    if (this.#panel === null) return;
    const count = this.#room.remoteParticipants.size + 1;
    byId("panel-title").textContent = this.#panel === "chat" ? t("chat") : t("people.count", { count });
  }

  /** @param {boolean} canPlay */
  #audio(canPlay) {
    const action = { label: t("banner.audio.do"), run: () => void this.#room.startAudio() };
    banner("audio", canPlay ? null : { text: t("banner.audio"), action });
  }

  /** @param {import("../client/index.js").MediaDevicesError} error */
  #deviceTrouble(error) {
    const { title, text } = deviceTrouble(error);
    const action = { label: t("trouble.again"), run: () => void this.#toggle(error.source) };
    banner("device", { text: `${t(title)}. ${t(text)}`, action });
    this.render();
  }

  #settings() {
    this.#stopMenus();
    this.#stopMenus = showSettings(this.#room, this.#entry.token, (avatarId) => {
      this.#entry.avatarId = avatarId;
      if (this.#entry.isDemo) rememberAvatar(avatarId);
      this.render();
    });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key === "Escape" && this.#panel !== null && document.querySelector("dialog[open]") === null) {
      return this.#open(this.#panel);
    }
    const what = shortcutOf(event, {
      isWriting: isWritingIn(event.target),
      isDialogOpen: document.querySelector("dialog[open]") !== null,
      isOn: areShortcutsOn(),
    });
    if (what === null) return;
    event.preventDefault();
    this.#actions[what]();
  }
}
