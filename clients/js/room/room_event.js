// @ts-check
/**
 * The names that a Room uses: its events, its states, sources and qualities.
 * @import { Participant } from "./participant.js"
 * @import { LocalParticipant } from "./local_participant.js"
 * @import { RemoteParticipant } from "./remote_participant.js"
 * @import { MediaDevicesError } from "../media/devices.js"
 */

/** Events of a Room, by LiveKit's names where it has one. `RoomEvents` says what a listener gets. */
export const RoomEvent = Object.freeze({
  /** in the room, and its state is known; after the lobby, too */
  Connected: "connected",
  /** in the lobby, until a moderator lets this participant in */
  Waiting: "waiting",
  /** the connection to the room's events was lost; it is being made again */
  Reconnecting: "reconnecting",
  Reconnected: "reconnected",
  /** for good: a code of `DisconnectCode` and a sentence */
  Disconnected: "disconnected",
  ParticipantConnected: "participantConnected",
  /** has left; why: left, removed, away, not-connected */
  ParticipantDisconnected: "participantDisconnected",
  /** name, hand, avatar or mute have changed */
  ParticipantUpdated: "participantUpdated",
  /** for moderators: a participant waits in the lobby */
  ParticipantWaiting: "participantWaiting",
  /** its picture and voice are received from now on */
  TrackSubscribed: "trackSubscribed",
  TrackUnsubscribed: "trackUnsubscribed",
  TrackMuted: "trackMuted",
  TrackUnmuted: "trackUnmuted",
  /** who speaks, the loudest first */
  ActiveSpeakersChanged: "activeSpeakersChanged",
  ChatMessage: "chatMessage",
  ReactionReceived: "reactionReceived",
  /** locked or unlocked */
  RoomUpdated: "roomUpdated",
  ConnectionQualityChanged: "connectionQualityChanged",
  /** a camera or microphone cannot be used, or was lost */
  MediaDevicesError: "mediaDevicesError",
  /** the browser plays voices, or waits for `startAudio()` in a click */
  AudioPlaybackStatusChanged: "audioPlaybackStatusChanged",
  LocalTrackPublished: "localTrackPublished",
  LocalTrackUnpublished: "localTrackUnpublished",
  /** the microphone is on and has given no sound for five seconds */
  SilentMicrophone: "silentMicrophone",
  /** the service refused a message of this client: too many, too long */
  MessageRefused: "messageRefused",
});

/**
 * @typedef {"disconnected"|"connecting"|"waiting"|"connected"|"reconnecting"} RoomConnectionState
 * @typedef {"excellent"|"good"|"poor"|"lost"|"unknown"} ConnectionQuality
 * @typedef {"camera"|"microphone"} TrackSource
 * @typedef {{participant: Participant|null, participantId: string, text: string, sequence: number}} ChatMessage
 *   participant: null if it has left since
 * @typedef {{participant: Participant|null, participantId: string, reaction: string, sequence: number}} Reaction
 */

/**
 * What a listener of each event gets.
 * @typedef {{
 *   connected: [me: LocalParticipant],
 *   waiting: [],
 *   reconnecting: [],
 *   reconnected: [],
 *   disconnected: [code: DisconnectCode, text: string],
 *   participantConnected: [participant: RemoteParticipant],
 *   participantDisconnected: [participant: RemoteParticipant, reason: string],
 *   participantUpdated: [participant: Participant],
 *   participantWaiting: [participant: RemoteParticipant],
 *   trackSubscribed: [participant: RemoteParticipant],
 *   trackUnsubscribed: [participant: RemoteParticipant],
 *   trackMuted: [participant: Participant],
 *   trackUnmuted: [participant: Participant],
 *   activeSpeakersChanged: [speakers: Participant[]],
 *   chatMessage: [message: ChatMessage],
 *   reactionReceived: [reaction: Reaction],
 *   roomUpdated: [],
 *   connectionQualityChanged: [participant: Participant],
 *   mediaDevicesError: [error: MediaDevicesError],
 *   audioPlaybackStatusChanged: [canPlay: boolean],
 *   localTrackPublished: [source: TrackSource, participant: LocalParticipant],
 *   localTrackUnpublished: [source: TrackSource, participant: LocalParticipant],
 *   silentMicrophone: [],
 *   messageRefused: [code: string, text: string],
 * }} RoomEvents
 */

/** What a participant sends. */
export const Track = Object.freeze({
  Source: Object.freeze({
    /** @type {"camera"} */ Camera: "camera",
    /** @type {"microphone"} */ Microphone: "microphone",
  }),
});

/** Reactions that move the avatar. A room carries any word of up to 32 characters. */
export const REACTIONS = Object.freeze(["nod", "shake", "smile", "laugh", "applause", "thumbs_up", "heart"]);

/**
 * Why a room has disconnected for good.
 * - `left`: this client has left, or the participant was ended by a limit
 * - `closed`: this client closed its connections; the participant stays in the room for a while
 * - `removed`, `replaced`, `ended`: by a moderator; by a newer connection of the same participant; the room is over
 * - `token`: the token is not valid, or has expired
 * - `flood`: too many messages
 * - `unreachable`: the service did not answer; only `connect()` says so
 * - `refused`: another refusal; the text says which
 * @typedef {"left"|"closed"|"removed"|"replaced"|"ended"|"token"|"flood"|"unreachable"|"refused"} DisconnectCode
 */

/** A room cannot be entered, or was left for good. The text is a sentence; `code` is for programs. */
export class RoomError extends Error {
  name = "RoomError";

  /**
   * @param {DisconnectCode} code
   * @param {string} text
   */
  constructor(code, text) {
    super(text);
    this.code = code;
  }
}
