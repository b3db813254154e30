"""Steps between tiers against a simulated device: down before anyone waits, up without flapping."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien_generator.engine.tiers import FULL, ROOMY, SessionLoad, TierPolicy, needed_share, plan

FLOOR_FPS = 15.0
#: Two CPU cores at the aim: 384 pixels in 60 ms, 256 in 33 ms, then warp on the pool.
CPU_S = (0.060, 0.033, 0.0)
GPU_S = (0.00025, 0.00012, 0.0)
WARP = 2
TICK_S = 0.25


def share(face_s: tuple[float, ...], tiers: list[int], wanted_fps: list[float]) -> float:
    return sum(needed_share(face_s[tier], fps, FLOOR_FPS) for tier, fps in zip(tiers, wanted_fps, strict=True))


@pytest.mark.parametrize(
    ("sessions", "tiers"),
    [(0, []), (1, [0]), (2, [1, 1]), (3, [1, 1, WARP]), (5, [1, 1, WARP, WARP, WARP])],
)
def test_the_plan_of_a_small_machine(sessions: int, tiers: list[int]) -> None:
    assert plan([30.0] * sessions, CPU_S, FLOOR_FPS, FULL) == tiers


def test_a_gpu_gives_everyone_the_best_as_long_as_it_can() -> None:
    assert plan([30.0] * 100, GPU_S, FLOOR_FPS, FULL) == [0] * 100
    assert set(plan([30.0] * 400, GPU_S, FLOOR_FPS, FULL)) == {0, 1}
    assert plan([30.0] * 1000, GPU_S, FLOOR_FPS, FULL).count(WARP) == pytest.approx(1000 - 555, abs=1)


def test_a_network_too_slow_for_the_floor_is_not_used() -> None:
    assert plan([30.0], (0.3, 0.09, 0.0), FLOOR_FPS, FULL) == [WARP]


Wanted = st.lists(st.floats(0, 60), max_size=30)
Ladder = st.tuples(st.floats(0.001, 0.2), st.floats(0.0005, 0.1)).map(lambda s: (max(s), min(s), 0.0))


@given(Wanted, Ladder, st.floats(0.1, 1.0))
def test_a_plan_keeps_its_budget_and_raises_nobody_twice_before_another_once(
    wanted: list[float], face_s: tuple[float, ...], budget: float
) -> None:
    tiers = plan(wanted, face_s, FLOOR_FPS, budget)
    assert share(face_s, tiers, wanted) <= budget + 1e-9
    for index, tier in enumerate(tiers):
        if tier == WARP and 0 in tiers:
            raised = [*tiers[:index], 1, *tiers[index + 1 :]]
            lowered = [1 if other == 0 else other for other in raised]
            # It could not have been raised even while nobody was higher than 1.
            assert share(face_s, lowered, wanted) > budget - 1e-9


@dataclass
class Call:
    """A session of the simulation."""

    load: SessionLoad
    steps: int = 0


class Device:
    """Gives each network session its share of frames; `slowness` is what else burdens it, seen or unseen."""

    def __init__(self, policy: TierPolicy, face_s: tuple[float, ...]) -> None:
        self.policy, self.face_s = policy, face_s
        self.calls: list[Call] = []
        self.now_s, self.slowness, self.seen = 0.0, 1.0, True
        self.changes: list[tuple[float, str, int]] = []

    def measured_s(self) -> list[float]:
        return [cost * (self.slowness if self.seen else 1.0) for cost in self.face_s]

    def join(self, name: str, wanted_fps: float = 30.0) -> None:
        loads = [call.load for call in self.calls]
        tier = self.policy.first_tier(loads, self.measured_s(), wanted_fps)
        self.calls.append(Call(SessionLoad(name, tier, wanted_fps, wanted_fps)))

    def leave(self, name: str) -> None:
        self.calls = [call for call in self.calls if call.load.session_id != name]

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.now_s += TICK_S
            self._draw()
            loads = [call.load for call in self.calls]
            for step in self.policy.decide(self.now_s, loads, self.measured_s()):
                call = next(call for call in self.calls if call.load.session_id == step.session_id)
                self.changes.append((self.now_s, step.session_id, step.tier - call.load.tier))
                call.load, call.steps = replace(call.load, tier=step.tier), call.steps + 1

    def _draw(self) -> None:
        on_device = [call for call in self.calls if self.face_s[call.load.tier] > 0]
        wanted = sum(call.load.wanted_fps * self.face_s[call.load.tier] * self.slowness for call in on_device)
        held = min(1.0, 1.0 / wanted) if wanted else 1.0
        for call in self.calls:
            fps = call.load.wanted_fps * (held if call in on_device else 1.0)
            call.load = replace(call.load, drawn_fps=fps)

    @property
    def tiers(self) -> list[int]:
        return [call.load.tier for call in self.calls]

    def hold_the_floor(self) -> bool:
        return all(call.load.drawn_fps >= 0.8 * min(FLOOR_FPS, call.load.wanted_fps) for call in self.calls)


def test_more_sessions_step_the_others_down_at_once_and_nobody_is_left_without_frames() -> None:
    device = Device(TierPolicy(FLOOR_FPS), CPU_S)
    for number in range(8):
        device.join(f"s{number}")
        device.run(1.5)
        assert device.hold_the_floor()
    assert device.tiers == [1, *[WARP] * 7]


def test_when_they_leave_those_who_stay_step_up_one_rung_at_a_time_the_oldest_first() -> None:
    device = Device(TierPolicy(FLOOR_FPS), CPU_S)
    for number in range(4):
        device.join(f"s{number}")
        device.run(1.0)
    for name in ("s0", "s1"):
        device.leave(name)
    gone_s = device.now_s
    device.run(60.0)
    ups = [(at_s, name, step) for at_s, name, step in device.changes if at_s > gone_s]
    assert next((name, step) for _, name, step in ups) == ("s2", -1)
    assert ups[0][0] - gone_s >= 4.0, "not at once: somebody may come back"
    assert all(step == -1 for _, _, step in ups)
    assert all(later[0] - earlier[0] >= 1.0 for earlier, later in itertools.pairwise(ups))
    assert device.tiers == [1, WARP], "two at 256 would leave it fuller than ROOMY"


def test_a_load_that_swings_does_not_make_sessions_flap() -> None:
    """Something else on the machine makes it half as fast, every 12 seconds for 6: the steps die away."""
    device = Device(TierPolicy(FLOOR_FPS), (0.04, 0.02, 0.0))
    device.join("s0")
    for _ in range(100):
        device.slowness = 2.2
        device.run(6.0)
        device.slowness = 1.0
        device.run(6.0)
    assert device.now_s == 1200.0
    swings = 200
    assert 2 <= len(device.changes) < swings / 10


def test_frames_that_do_not_come_are_believed_over_costs_that_say_they_should() -> None:
    """Costs were measured on a quiet machine; now it is slow and nothing in the costs says so."""
    device = Device(TierPolicy(FLOOR_FPS), CPU_S)
    device.seen = False
    device.join("s0")
    device.calls[0].load = replace(device.calls[0].load, tier=0)
    device.run(2.0)
    assert device.tiers == [0]
    device.slowness = 2.0
    device.run(4.0)
    assert device.tiers[0] > 0
    assert device.hold_the_floor()
    assert device.changes[0][2] == 1, "one rung at a time"


def test_a_session_begins_on_a_tier_that_holds() -> None:
    """On a machine that could just so draw it at 384, it begins at 256: a step down would be seen at once."""
    policy = TierPolicy(FLOOR_FPS)
    assert plan([30.0], CPU_S, FLOOR_FPS, FULL) == [0]
    assert policy.first_tier([], CPU_S, 30.0) == 1
    assert policy.first_tier([], GPU_S, 30.0) == 0
    assert policy.first_tier([], tuple(3 * cost for cost in CPU_S), 30.0) == WARP


@pytest.mark.parametrize(("shares_cores", "steps"), [(True, [("s1", 1)]), (False, [])])
def test_on_the_cpu_a_network_gives_way_to_warped_sessions_that_go_short(
    shares_cores: bool, steps: list[tuple[str, int]]
) -> None:
    policy = TierPolicy(FLOOR_FPS, shares_cores)
    cheap = (0.01, 0.005, 0.0)
    loads = [SessionLoad("s0", 1, 30.0, 30.0), SessionLoad("s1", 0, 30.0, 30.0), SessionLoad("s2", WARP, 30.0, 20.0)]
    assert policy.decide(0.0, loads, cheap) == []
    found = policy.decide(1.0, loads, cheap)
    assert [(step.session_id, step.tier) for step in found if step.tier > 0] == steps


def test_where_all_are_warped_there_is_nothing_to_step() -> None:
    policy = TierPolicy(FLOOR_FPS, shares_cores=True)
    starving = [SessionLoad("s0", WARP, 30.0, 5.0)]
    slow = (9.0, 9.0, 0.0)
    assert [policy.decide(second, starving, slow) for second in (0.0, 1.0, 2.0, 9.0)] == [[], [], [], []]


def test_a_moments_dip_steps_nobody() -> None:
    policy = TierPolicy(FLOOR_FPS)
    loads = [SessionLoad("s0", 0, 30.0, 3.0)]
    assert policy.decide(0.0, loads, CPU_S) == []
    assert policy.decide(0.5, [replace(loads[0], drawn_fps=16.0)], CPU_S) == []
    assert policy.decide(0.9, loads, CPU_S) == []
    assert policy.decide(1.5, loads, CPU_S) == []
    assert policy.decide(2.0, loads, CPU_S) != []


def test_after_a_long_quiet_time_the_hold_off_is_forgiven() -> None:
    policy = TierPolicy(FLOOR_FPS)
    up, down = [SessionLoad("s0", 1, 30.0, 30.0)], [SessionLoad("s0", 0, 30.0, 30.0)]
    roomy, slow = (0.03, 0.02, 0.0), (0.09, 0.02, 0.0)
    at_s = 0.0
    for _ in range(4):  # up, and down again at once: each time a mistake
        while not policy.decide(at_s, up, roomy):
            at_s += TICK_S
        at_s += TICK_S
        assert policy.decide(at_s, down, slow)
    patient_s = policy.hold_off_s
    assert patient_s == 64.0
    while at_s < 2000:
        at_s += TICK_S
        policy.decide(at_s, down, roomy)
    assert policy.hold_off_s < patient_s


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.floats(0.7, 2.5)), max_size=40))
def test_whatever_happens_the_floor_holds_soon_after(events: list[tuple[bool, int, float]]) -> None:
    """Sessions come and go and the machine changes its speed; ten seconds later all have the frames of the floor."""
    device = Device(TierPolicy(FLOOR_FPS), CPU_S)
    for joins, number, slowness in events:
        name = f"s{number}"
        if joins and name not in {call.load.session_id for call in device.calls}:
            device.join(name)
        elif not joins:
            device.leave(name)
        device.slowness = slowness
        device.run(1.0)
    device.run(10.0)
    assert device.hold_the_floor()
    used = share(tuple(device.measured_s()), device.tiers, [30.0] * len(device.tiers))
    assert used <= FULL
    assert ROOMY < FULL
