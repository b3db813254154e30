"""Every Redis key in one place.

The braces are hash tags: in a cluster, all keys of one session, or of one generator, are on one node, so that a script
or a blocking read can use several of them.
"""

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
