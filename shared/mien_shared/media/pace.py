"""The times at which a clip's pictures are due, from time stamps that may be wrong. Pure."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

#: The rate of a clip that names none, or none that a camera films at.
DEFAULT_RATE = Fraction(25)
_LOWEST_RATE, _HIGHEST_RATE = 1, 240
#: Time between two pictures above which their stamps are not believed: a stream that was cut or joined has such jumps.
_LONGEST_STEP_S = 1.0
_SHORTEST_STEP_S = 0.001


def usual_rate(*rates: Fraction | None) -> Fraction:
    """The first of these frame rates that is plausible.

    A jump of an hour makes a clip's average rate tiny, and some files state the rate of their clock instead.
    """
    return next((rate for rate in rates if rate and _LOWEST_RATE <= rate <= _HIGHEST_RATE), DEFAULT_RATE)


class Pace:
    """Turns the time stamps of successive pictures into seconds since the first picture, which always advance.

    rate: pictures a second, used where stamps are missing or cannot be believed. tell: called with one sentence when
    the first stamp is missing, and when stamps jump for the first time.
    """

    def __init__(self, rate: Fraction, tell: Callable[[str], None] | None = None) -> None:
        self._rate = rate
        self._interval_s = float(1 / rate)
        self._tell = tell or (lambda text: None)
        self._told: set[str] = set()
        self._at_s: float | None = None
        self._stamp_s: float | None = None
        # How far due times are ahead of the stamps, because a picture without a believable stamp took an interval.
        self._ahead_s = 0.0

    def at_s(self, stamp_s: float | None) -> float:
        """When the next picture is due, in seconds since the first picture. stamp_s: None if it has no stamp."""
        step_s = self._step_s(stamp_s)
        self._at_s = 0.0 if self._at_s is None else self._at_s + step_s
        return self._at_s

    def _step_s(self, stamp_s: float | None) -> float:
        if stamp_s is None:
            self._tell_once("missing", "pictures have no time stamps")
            self._ahead_s += self._interval_s
            return self._interval_s
        before_s, self._stamp_s = self._stamp_s, stamp_s
        if before_s is None:
            self._ahead_s = 0.0
            return self._interval_s
        step_s = stamp_s - before_s
        if abs(step_s) > _LONGEST_STEP_S:
            self._tell_once("jump", f"time stamps jump by {step_s:.1f} s")
            self._ahead_s = 0.0
            return self._interval_s
        if step_s < _SHORTEST_STEP_S:  # stamps in the wrong order, or two that are equal: later stamps make up for it
            self._ahead_s += self._interval_s - step_s
            return self._interval_s
        made_up_s = min(self._ahead_s, max(0.0, step_s - self._interval_s))
        self._ahead_s -= made_up_s
        return step_s - made_up_s

    def _tell_once(self, kind: str, what: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._tell(f"{what}; such pictures are played at {float(self._rate):.4g} a second")
