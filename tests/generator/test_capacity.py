"""How many sessions a machine is said to hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien_generator.capacity import Speed, capacity
from mien_generator.cost import BatchCost

#: Two cores of this project's reference machine.
WARP_ONLY = Speed((), warp_s=0.0026, finish_s=0.0024)
GPU = BatchCost(((1, 0.0015), (16, 0.004)))


def test_two_cores_hold_seven_warped_sessions_as_measured() -> None:
    assert capacity(WARP_ONLY, 2.0, shares_cores=True, fps=30, floor_fps=15, batch=16) == 7


def test_a_network_on_the_cpu_adds_no_place_since_its_sessions_can_step_down() -> None:
    with_network = Speed((BatchCost.linear(0.06), BatchCost.linear(0.033)), 0.0026, 0.0024)
    assert capacity(with_network, 2.0, shares_cores=True, fps=30, floor_fps=15, batch=1) == 7


def test_a_gpu_takes_the_faces_and_its_cores_bind() -> None:
    speed = Speed((GPU,), 0.0026, 0.0024)
    assert capacity(speed, 16.0, shares_cores=False, fps=30, floor_fps=15, batch=16) == 122
    assert capacity(speed, 200.0, shares_cores=False, fps=30, floor_fps=15, batch=16) > 700


def test_where_the_gpu_binds_the_cores_left_warp_for_the_rest() -> None:
    slow = Speed((BatchCost.linear(0.01),), 0.0026, 0.0024)
    on_device = int(0.95 / (0.01 * 15))
    assert capacity(slow, 4.0, shares_cores=False, fps=30, floor_fps=15, batch=1) > on_device


def test_one_is_taken_however_slow_the_machine() -> None:
    assert capacity(Speed((), 0.5, 0.5), 0.1, shares_cores=True, fps=30, floor_fps=15, batch=1) == 1


def test_without_a_floor_the_device_never_binds() -> None:
    speed = Speed((BatchCost.linear(1.0),), 0.0026, 0.0024)
    assert capacity(speed, 2.0, shares_cores=False, fps=30, floor_fps=0, batch=1) == 15


@given(st.floats(1e-4, 0.1), st.floats(1e-4, 0.1), st.floats(0.1, 64), st.floats(1.0, 4.0))
def test_more_cores_never_hold_fewer(warp_s: float, finish_s: float, cores: float, times: float) -> None:
    speed = Speed((), warp_s, finish_s)
    fewer = capacity(speed, cores, True, 30, 15, 1)
    assert capacity(speed, cores * times, True, 30, 15, 1) >= fewer
    assert fewer == 1 or fewer * (warp_s + finish_s) * 30 <= cores, "never more than there is time for"


@pytest.mark.parametrize("cores", [1.0, 2.0, 7.5])
def test_admitted_sessions_leave_room_for_the_rest_of_the_process(cores: float) -> None:
    held = capacity(WARP_ONLY, cores, True, 30, 15, 1)
    assert held * 30 * (WARP_ONLY.warp_s + WARP_ONLY.finish_s) <= 0.55 * cores
