"""Every Redis key in one place. The braces are hash tags: in a cluster all keys of one session, or of one generator,
lie on one node, so a script or a blocking read over them works there too."""

SESSIONS = "mien:sessions"
GENERATORS = "mien:generators"


def record(session_id: str) -> str:
    return f"mien:session:{{{session_id}}}:record"


def ended(session_id: str) -> str:
    return f"mien:session:{{{session_id}}}:ended"


def lease(session_id: str) -> str:
    return f"mien:session:{{{session_id}}}:lease"


def stats(session_id: str) -> str:
    return f"mien:session:{{{session_id}}}:stats"


def viewers(session_id: str) -> str:
    return f"mien:session:{{{session_id}}}:viewers"


def video(session_id: str) -> str:
    return f"mien:session:{{{session_id}}}:video"


def status(generator_id: str) -> str:
    return f"mien:generator:{{{generator_id}}}:status"


def slots(generator_id: str) -> str:
    return f"mien:generator:{{{generator_id}}}:slots"


def inbox(generator_id: str) -> str:
    return f"mien:generator:{{{generator_id}}}:inbox"


def control(generator_id: str) -> str:
    return f"mien:generator:{{{generator_id}}}:control"
