"""Who may do what with a session: tokens to 401 and 403."""

from __future__ import annotations

from collections.abc import Iterable

from mien_shared.problems import Problem
from mien_shared.tokens import Grant, NotGranted, TokenError, TokenIssuer

#: RFC 6750, section 3.
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="mien"'}


def demand_grant(tokens: TokenIssuer, token: str | None, session_id: str, any_of: Iterable[Grant]) -> None:
    """Raise a Problem, 401 or 403, unless `token` holds one of these grants for this session."""
    if token is None:
        raise Problem(401, "token-missing", "this needs the session's token as a bearer", _CHALLENGE)
    refused: NotGranted | None = None
    for grant in any_of:
        try:
            tokens.check(token, session_id, grant)
        except NotGranted as error:
            refused = error
        except TokenError as error:
            raise Problem(401, "token-invalid", str(error), _CHALLENGE) from error
        else:
            return
    raise Problem(403, "token-not-granted", str(refused))
