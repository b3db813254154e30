"""A client of the gateway's REST API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, Field, ValidationError

from mien_shared.avatars import AvatarKind, Consent, ConsentKind, FaceBox, KeypointRow
from mien_shared.bus.messages import SessionStats, ViewerState
from mien_shared.keypoints import NUM_KEYPOINTS, Keypoints
from mien_shared.settings import IceServer

_TIMEOUT_S = 20.0
#: Servers close a connection after five idle seconds. Dropping it earlier keeps requests off closing connections.
_IDLE_S = 3.0


class MienError(Exception):
    """The service refused a call.

    status: the HTTP status. code: the problem's stable name. detail: one sentence for a person. retry_after_s: when to
    try again, if the service said so.
    """

    def __init__(self, status: int, code: str, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s


class Unreachable(Exception):
    """The service at that address does not answer."""


class BadAddress(ValueError):
    """An address that no service can have. The text names it and says what is wrong with it."""


class BadToken(ValueError):
    """An API key or a token that a request cannot carry."""


class NotMien(Exception):
    """Something answers at that address, but not as Mien does."""


class Avatar(BaseModel):
    """A stored avatar.

    face_box: the face's box in the 1280x720 still picture. keypoints: ten rows of x, y, j00, j01, j10, j11; points are
    in that box, [-1, 1]. consent: what the uploader said about the person in the picture.
    """

    avatar_id: str
    kind: AvatarKind = AvatarKind.PORTRAIT
    width: int
    height: int
    face_box: FaceBox
    keypoints: list[KeypointRow] = Field(min_length=NUM_KEYPOINTS, max_length=NUM_KEYPOINTS)
    consent: Consent | None = None

    def source_keypoints(self) -> Keypoints:
        """The avatar's own ten keypoints in its crop."""
        return Keypoints.from_rows(self.keypoints)


class ListedAvatar(BaseModel):
    """An avatar as the list of all shows it. expires_at_ms: when it is deleted if no session uses it; None: never."""

    avatar_id: str
    created_at_ms: int
    used_at_ms: int
    expires_at_ms: int | None = None


class Session(BaseModel):
    """A session as its creator gets it.

    token: permits to send motion, to watch and to end the session. watch_token: permits viewers to watch.
    """

    session_id: str
    token: str
    watch_token: str
    uplink_url: str
    whep_url: str
    ice_servers: list[IceServer] = []

    @property
    def whip_url(self) -> str:
        """Where motion and voice are sent over one peer connection: beside the address for viewers."""
        return self.whep_url.replace("/v1/whep/", "/v1/whip/")


class SessionState(BaseModel):
    """A session as its viewers see it."""

    session_id: str
    avatar_id: str
    state: str
    whep_url: str
    created_at_ms: int
    synthetic: bool = True
    generator: str | None = None
    stats: SessionStats | None = None


class Participant(BaseModel):
    """A participant of a room. session_id and whep_url: where its avatar can be watched, None for a listener."""

    participant_id: str
    identity: str
    name: str
    state: str
    grants: list[str] = []
    muted: bool = False
    hand: bool = False
    avatar_id: str | None = None
    session_id: str | None = None
    whep_url: str | None = None


class RoomInfo(BaseModel):
    """A room."""

    room_id: str
    name: str | None = None
    locked: bool = False
    lobby: bool = False
    max_participants: int
    metadata: str = ""


class RoomDetails(RoomInfo):
    """A room with its participants."""

    participants: list[Participant]


class RoomConnection(BaseModel):
    """Where a participant connects, as the room tells it.

    whip_url: takes its voice and motion, None without avatar. whep_url: sends it everyone's picture and voice, None
    without the grant watch. uplink_url: the WebSocket for motion, None without a session.
    """

    whip_url: str | None = None
    whep_url: str | None = None
    uplink_url: str | None = None
    ice_servers: list[IceServer] = []


class ActiveSpeaker(BaseModel):
    """A participant that is heard. level: 0 (hardly) to 1 (full scale)."""

    participant_id: str
    level: float


class Slot(BaseModel):
    """One slot of a connection to a room's media. participant_id: None if it is empty."""

    slot: int
    video_mid: str
    audio_mid: str | None = None
    participant_id: str | None = None


class SlotList(BaseModel):
    """Who is in which slot of the connection that the service calls `viewer_id`."""

    viewer_id: str
    slots: list[Slot]


class AvatarSession(BaseModel):
    """The session of a participant's avatar."""

    session_id: str
    uplink_url: str
    whep_url: str


class Invitation(BaseModel):
    """What a person's device needs to join a room. session: None for a listener, and in the lobby."""

    participant_id: str
    token: str
    room_url: str
    events_url: str
    state: str
    session: AvatarSession | None = None
    ice_servers: list[IceServer] = []


class _AvatarList(BaseModel):
    avatars: list[ListedAvatar]


class _RoomList(BaseModel):
    rooms: list[RoomInfo]


class _SessionList(BaseModel):
    sessions: list[SessionState]


class _ViewerList(BaseModel):
    viewers: list[ViewerState]


_Model = TypeVar("_Model", bound=BaseModel)


class MienClient:
    """REST calls to one gateway. An async context manager. Every method raises MienError, Unreachable or NotMien.

    api_key: an operator's key. Calls about avatars, new sessions and the list of sessions need it, unless the
    deployment is open. Raises BadAddress and BadToken.
    """

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        self._http = httpx.AsyncClient(
            base_url=checked_address(base_url),
            headers=authorization(api_key),
            timeout=_TIMEOUT_S,
            limits=httpx.Limits(keepalive_expiry=_IDLE_S),
            trust_env=False,
        )

    async def upload_avatar(
        self, picture: Path, consent: ConsentKind | str | None = None, consent_name: str | None = None
    ) -> Avatar:
        """Upload a picture with one face. The service crops and scales it.

        consent: whether the person in the picture agreed: "self", "granted" with consent_name, or "drawn" for a picture
        of no real person. Required, except by a demo on this machine.
        """
        files = {"image": (picture.name, picture.read_bytes(), "application/octet-stream")}
        said = {"consent": None if consent is None else str(consent), "consent_name": consent_name}
        form = {field: value for field, value in said.items() if value is not None}
        return self._parsed(Avatar, await self._call("POST", "/v1/avatars", files=files, data=form))

    async def avatar(self, avatar_id: str) -> Avatar:
        return self._parsed(Avatar, await self._call("GET", f"/v1/avatars/{quote(avatar_id, safe='')}"))

    async def avatars(self) -> list[ListedAvatar]:
        return self._parsed(_AvatarList, await self._call("GET", "/v1/avatars")).avatars

    async def delete_avatar(self, avatar_id: str) -> None:
        """Delete an avatar. Sessions that show it end."""
        await self._call("DELETE", f"/v1/avatars/{quote(avatar_id, safe='')}")

    async def create_session(self, avatar_id: str) -> Session:
        return self._parsed(Session, await self._call("POST", "/v1/sessions", json={"avatar_id": avatar_id}))

    async def sessions(self) -> list[SessionState]:
        """All live sessions. Needs an API key, unless the deployment is open."""
        return self._parsed(_SessionList, await self._call("GET", "/v1/sessions")).sessions

    async def session(self, session_id: str, token: str | None = None) -> SessionState:
        path = f"/v1/sessions/{quote(session_id, safe='')}"
        return self._parsed(SessionState, await self._call("GET", path, headers=authorization(token)))

    async def end_session(self, session_id: str, token: str) -> None:
        await self._call("DELETE", f"/v1/sessions/{quote(session_id, safe='')}", headers=authorization(token))

    async def viewers(self, session_id: str) -> list[ViewerState]:
        """Who watches a session at the moment. Needs an API key, unless the deployment is open."""
        path = f"/v1/sessions/{quote(session_id, safe='')}/viewers"
        return self._parsed(_ViewerList, await self._call("GET", path)).viewers

    async def end_viewer(self, session_id: str, viewer_id: str) -> None:
        """End one viewer's connection. Needs an API key, unless the deployment is open."""
        await self._call("DELETE", f"/v1/sessions/{quote(session_id, safe='')}/viewers/{quote(viewer_id, safe='')}")

    async def create_room(self, name: str | None = None, **options: Any) -> RoomInfo:
        """Create a room, or get the one that has this name. options: the other fields of POST /v1/rooms."""
        wish = options if name is None else {"name": name, **options}
        return self._parsed(RoomInfo, await self._call("POST", "/v1/rooms", json=wish))

    async def rooms(self) -> list[RoomInfo]:
        return self._parsed(_RoomList, await self._call("GET", "/v1/rooms")).rooms

    async def room(self, room_id: str) -> RoomDetails:
        return self._parsed(RoomDetails, await self._call("GET", _room_path(room_id)))

    async def lock_room(self, room_id: str, locked: bool = True) -> None:
        """A locked room takes no new identity."""
        await self._call("PATCH", _room_path(room_id), json={"locked": locked})

    async def end_room(self, room_id: str) -> None:
        await self._call("DELETE", _room_path(room_id))

    async def join_room(
        self,
        room_id: str,
        identity: str,
        name: str = "",
        avatar_id: str | None = None,
        grants: Sequence[str] = ("publish", "watch"),
    ) -> Invitation:
        """Let a person join a room. Its device connects with the invitation's token (`Room`)."""
        wish = {"identity": identity, "name": name, "avatar_id": avatar_id, "grants": list(grants)}
        return self._parsed(Invitation, await self._call("POST", f"{_room_path(room_id)}/participants", json=wish))

    async def update_participant(
        self, room_id: str, participant_id: str, token: str | None = None, **changes: Any
    ) -> Participant:
        """Change muted, hand or avatar_id, or let a participant in (admitted=True). token: of a participant."""
        path = f"{_room_path(room_id)}/participants/{quote(participant_id, safe='')}"
        answer = await self._call("PATCH", path, json=changes, headers=authorization(token))
        return self._parsed(Participant, answer)

    async def remove_participant(self, room_id: str, participant_id: str, token: str | None = None) -> None:
        """Remove a participant from a room. token: of a moderator, or of the participant itself."""
        path = f"{_room_path(room_id)}/participants/{quote(participant_id, safe='')}"
        await self._call("DELETE", path, headers=authorization(token))

    async def _call(self, method: str, path: str, **request: Any) -> bytes:
        try:
            response = await self._http.request(method, path, **request)
        except httpx.RequestError as error:
            raise Unreachable(f"{self._http.base_url} does not answer: {error or type(error).__name__}") from error
        refuse_failure(response)
        return response.content

    def _parsed(self, model: type[_Model], content: bytes) -> _Model:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            raise NotMien(f"{self._http.base_url} answers, but not as Mien's gateway does") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()


def _room_path(room_id: str) -> str:
    return f"/v1/rooms/{quote(room_id, safe='')}"


def authorization(token: str | None) -> dict[str, str]:
    """The header that carries a token. Empty without a token. Raises BadToken."""
    if not token:
        return {}
    if not (token.isascii() and token.isprintable()):
        raise BadToken("the API key or token has characters that no request can carry: copy it again")
    return {"Authorization": f"Bearer {token}"}


def checked_address(url: str) -> str:
    """The address, if it can be one of a service. Raises BadAddress."""
    shown = url.partition("#")[0]  # the fragment may hold a token
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # reading it checks it
        httpx.URL(url)  # stricter than urlsplit: it knows which hosts there can be
    except (ValueError, httpx.InvalidURL) as error:
        raise BadAddress(f"{shown} is not an address: {error}") from error
    if not usable:
        raise BadAddress(f"{shown} is not an address: it must begin with http:// or https:// and name a host")
    return url


def refuse_failure(response: httpx.Response) -> None:
    """Raise MienError for an error, or NotMien for a redirection: Mien sends none."""
    if response.is_error:
        raise _error_of(response)
    if response.has_redirect_location:
        raise NotMien(f"{response.url} leads to {response.headers['location']}: use the address that it leads to")


class _ProblemDocument(BaseModel):
    """What we read of a problem document (RFC 9457)."""

    type: str
    detail: str


def _error_of(response: httpx.Response) -> MienError:
    """The exception for an error response. Its text comes from the problem document, if there is one."""
    code, detail = "http-error", response.reason_phrase
    try:
        problem = _ProblemDocument.model_validate_json(response.content)
        code, detail = problem.type.rpartition(":")[2], problem.detail
    except ValidationError:
        pass  # a proxy answered
    retry_after = response.headers.get("retry-after", "")
    return MienError(response.status_code, code, detail, float(retry_after) if retry_after.isdigit() else None)
