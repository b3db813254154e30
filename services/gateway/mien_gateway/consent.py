"""The consent of the person in an uploaded picture: what an upload must say, and who may upload what. Pure.

The form has a field `consent`: "self", "granted" with the person's name in `consent_name`, or "drawn" for a picture of
no real person. A gateway cannot know whether it is true. It asks, refuses an upload that does not say, and keeps who
said it and when. docs/decisions/0024-consent.md has the reasons.
"""

from __future__ import annotations

from mien_gateway.uploads import CONSENT_FIELD, CONSENT_NAME_FIELD, Upload
from mien_shared.avatars import Consent, ConsentKind
from mien_shared.http.principal import Principal, Role
from mien_shared.http.problems import Code, Problem

MAX_NAME_CHARACTERS = 128
_KINDS = ", ".join(f"'{kind}'" for kind in ConsentKind)


def stated(upload: Upload, by: Principal, unix_s: float) -> Consent | None:
    """What an upload says about consent. Raises Problem 422 for a statement that is missing or cannot be read.

    None: the caller has no credentials. That is so only in a demo on the caller's machine, where it need not say it.
    """
    if upload.consent is None:
        if by.role is Role.ANYONE and upload.consent_name is None:
            return None
        raise Problem(
            Code.CONSENT_MISSING,
            f"say in the field '{CONSENT_FIELD}' whether the person in the picture agreed: {_KINDS}",
        )
    try:
        kind = ConsentKind(upload.consent)
    except ValueError as error:
        raise Problem(Code.CONSENT_INVALID, f"the field '{CONSENT_FIELD}' must be one of {_KINDS}") from error
    name = upload.consent_name
    if kind is ConsentKind.GRANTED and name is None:
        raise Problem(Code.CONSENT_INVALID, f"'granted' needs the person's name in the field '{CONSENT_NAME_FIELD}'")
    if name is not None and (len(name) > MAX_NAME_CHARACTERS or not name.isprintable()):
        detail = f"the field '{CONSENT_NAME_FIELD}' must have at most {MAX_NAME_CHARACTERS} printable characters"
        raise Problem(Code.CONSENT_INVALID, detail)
    return Consent(kind=kind, name=name, said_by=f"{by.role} {by.name}", said_at_ms=int(unix_s * 1000))


def demand_taken(consent: Consent | None, by: Principal, photographs: bool) -> None:
    """Raises Problem 403 for a picture that this deployment does not take.

    Without photographs, only an operator may upload a drawing: the word of a participant would not keep them out.
    """
    drawing = consent is not None and consent.kind is ConsentKind.DRAWN
    if not photographs and not (drawing and by.role is Role.OPERATOR):
        raise Problem(
            Code.PHOTOGRAPHS_FORBIDDEN,
            "photographs are not taken here (MIEN_PHOTOGRAPHS): choose a bundled avatar; operators may upload drawings",
        )
