"""Principals: who calls a service, and what the caller may do. Operators and bearers of tokens are principals."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from mien_shared.bus.messages import SessionRecord
from mien_shared.http.problems import Code, Problem


class Grant(StrEnum):
    """What a principal may do with a session, or in a room."""

    PUBLISH = "publish"
    WATCH = "watch"
    END = "end"
    MODERATE = "moderate"  # in a room: admit, mute and remove participants, lock and end the room


class Role(StrEnum):
    """What kind of caller a principal is."""

    OPERATOR = "operator"  # the bearer of an API key
    BEARER = "bearer"  # the bearer of a session's token
    PARTICIPANT = "participant"  # the bearer of a participant's token
    ANYONE = "anyone"  # a caller without credentials, where the deployment is open


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller.

    name: identifies the caller for rate limits and logs; it is the same for the same credentials and does not reveal
    them. scope: the session that the grants are limited to, or the participant, None where they hold for every
    session. expires_unix_s: when the credentials expire, None if they do not. room: the participant's room.
    """

    role: Role
    name: str
    grants: frozenset[Grant]
    scope: str | None = None
    expires_unix_s: float | None = None
    room: str | None = None

    @classmethod
    def operator(cls, name: str) -> Principal:
        """An operator may watch and end every session, but not send motion to one."""
        return cls(Role.OPERATOR, name, frozenset({Grant.WATCH, Grant.END}))

    @classmethod
    def anyone(cls) -> Principal:
        """A caller of an open deployment may watch every session."""
        return cls(Role.ANYONE, "anyone", frozenset({Grant.WATCH}))

    def demand(self, session_id: str, any_of: Collection[Grant]) -> None:
        """Raises Problem 403 unless this caller has one of the grants for this session."""
        if self.scope not in {None, session_id}:
            raise Problem(Code.TOKEN_NOT_GRANTED, "the token is for another session")
        if self.grants.isdisjoint(any_of):
            raise Problem(Code.TOKEN_NOT_GRANTED, f"the token does not grant {' or '.join(sorted(any_of))}")

    def demand_session(self, session: SessionRecord, any_of: Collection[Grant]) -> None:
        """Like `demand`, for a session whose record is known.

        A participant has all its grants for its own session, and only WATCH for the other sessions of its room.
        """
        if self.room is None:
            self.demand(session.session_id, any_of)
            return
        if session.room_id != self.room:
            raise Problem(Code.TOKEN_NOT_GRANTED, "the token is for another room")
        usable = self.grants if session.participant_id == self.scope else self.grants & {Grant.WATCH}
        if usable.isdisjoint(any_of):
            raise Problem(Code.TOKEN_NOT_GRANTED, f"the token does not grant {' or '.join(sorted(any_of))}")
