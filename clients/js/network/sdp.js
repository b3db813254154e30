// @ts-check
/** What WHIP and WHEP need of SDP and HTTP headers. Pure, but for the codecs that the browser names. */

/**
 * The ICE servers of a Link header (RFC 9725, section 4.6).
 * @param {string|null} header e.g. `<turn:t.example?transport=udp>; rel="ice-server"; username="u"; credential="c"`
 * @returns {RTCIceServer[]}
 */
export function parseIceServerLinks(header) {
  /** @type {RTCIceServer[]} */
  const servers = [];
  for (const [, url, parameters] of (header ?? "").matchAll(/<([^>]*)>((?:[^,"]|"(?:[^"\\]|\\.)*")*)/g)) {
    /** @type {Record<string, string>} */
    const fields = {};
    for (const [, name, quoted, bare] of parameters.matchAll(/;\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))/g)) {
      fields[name.toLowerCase()] = quoted === undefined ? bare : quoted.replace(/\\(.)/g, "$1");
    }
    if (fields.rel !== "ice-server") continue;
    const { username, credential = "" } = fields;
    servers.push(username ? { urls: url, username, credential } : { urls: url });
  }
  return servers;
}

/**
 * ICE servers as the gateway names them, whose fields may be null: a browser would take that for the name "null".
 * @param {{urls: string|string[], username?: string|null, credential?: string|null}[]} servers
 * @returns {RTCIceServer[]}
 */
export function iceServersOf(servers) {
  return servers.map(({ urls, username, credential }) =>
    username == null ? { urls } : { urls, username, credential: credential ?? "" },
  );
}

/**
 * An SDP fragment with candidates (RFC 8840) for the first media section of an offer, which carries its bundle.
 * @param {string} offerSdp
 * @param {string[]} candidates `candidate:...` lines without the `a=`
 * @param {boolean} complete whether these are the last
 */
export function candidateFragment(offerSdp, candidates, complete) {
  const lines = offerSdp.split(/\r?\n/);
  const first = (/** @type {string} */ prefix) => lines.find((line) => line.startsWith(prefix));
  return [
    first("a=ice-ufrag:"),
    first("a=ice-pwd:"),
    first("m="),
    first("a=mid:"),
    ...candidates.map((candidate) => `a=${candidate}`),
    complete ? "a=end-of-candidates" : undefined,
  ]
    .filter((line) => line !== undefined)
    .join("\r\n")
    .concat("\r\n");
}

/**
 * Whether candidates may be declared complete. A browser hides host addresses behind `.local` names (mDNS). A server
 * that cannot resolve these names learns the real addresses only from the browser's own connectivity checks. If it was
 * told that no more candidates will come, it gives up before these checks arrive.
 * @param {string[]} candidates
 */
export function areAllAddresses(candidates) {
  return candidates.length > 0 && !candidates.some((candidate) => / \S+\.local /.test(candidate));
}

/**
 * Offer H.264 constrained baseline and its retransmissions, because Mien sends nothing else. With everything that a
 * browser knows, an offer of 24 sections is longer than a server reads. A browser without H.264 offers what it has, and
 * the server names what is missing.
 * @param {RTCRtpTransceiver} transceiver
 */
export function offerH264(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities("video")?.codecs ?? [];
  const isOurs = (/** @type {{mimeType: string, sdpFmtpLine?: string}} */ { mimeType, sdpFmtpLine = "" }) =>
    mimeType.toLowerCase() === "video/h264" &&
    /profile-level-id=42[ce]0/i.test(sdpFmtpLine) &&
    sdpFmtpLine.includes("packetization-mode=1");
  const chosen = codecs.filter(isOurs);
  const retransmission = codecs.filter(({ mimeType }) => mimeType.toLowerCase() === "video/rtx");
  if (chosen.length > 0) transceiver.setCodecPreferences([...chosen, ...retransmission]);
}

/**
 * Offer Opus only, for the same reason.
 * @param {RTCRtpTransceiver} transceiver
 */
export function offerOpus(transceiver) {
  const codecs = RTCRtpReceiver.getCapabilities("audio")?.codecs ?? [];
  transceiver.setCodecPreferences(codecs.filter(({ mimeType }) => mimeType.toLowerCase() === "audio/opus"));
}

/**
 * The session id of a WHIP or WHEP Location: its last part.
 * @param {string} location
 */
export function idOf(location) {
  return new URL(location).pathname.split("/").at(-1) ?? "";
}
