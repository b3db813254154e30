"""When an IDR is made, with explicit times."""

from mien_generator.h264.keyframes import KeyframePolicy


def started(at_s: float = 0.0) -> KeyframePolicy:
    policy = KeyframePolicy()
    policy.was_sent(at_s)
    return policy


def test_a_stream_begins_with_an_idr() -> None:
    assert KeyframePolicy().is_due(12.0)


def test_without_a_request_there_is_none_until_the_safety_interval() -> None:
    policy = started()
    assert not policy.is_due(9.99)
    assert policy.is_due(10.0)


def test_a_request_is_served_by_the_next_frame() -> None:
    policy = started()
    policy.request("pli")
    assert policy.is_due(3.0)


def test_a_request_just_after_an_idr_waits_for_half_a_second() -> None:
    policy = started(5.0)
    policy.request("pli")
    assert not policy.is_due(5.033)
    assert not policy.is_due(5.499)
    assert policy.is_due(5.5)


def test_requests_that_come_together_are_one_idr() -> None:
    policy = started()
    for _ in range(40):
        policy.request("pli")
    policy.request("join")
    policy.was_sent(1.0)
    assert not policy.is_due(1.6)
    assert policy.sent == 2
    assert policy.requests == {"pli": 40, "join": 1}


def test_a_storm_of_requests_makes_two_idrs_a_second() -> None:
    policy = KeyframePolicy()
    for frame in range(30 * 10):
        now_s = frame / 30
        policy.request("pli")
        if policy.is_due(now_s):
            policy.was_sent(now_s)
    assert policy.sent == 20


def test_an_idr_the_encoder_made_by_itself_serves_the_requests() -> None:
    policy = started()
    policy.request("join")
    policy.was_sent(2.0)
    assert not policy.is_due(4.0)


def test_the_intervals_can_be_chosen() -> None:
    policy = KeyframePolicy(min_interval_s=1.0, safety_interval_s=2.0)
    policy.was_sent(0.0)
    policy.request("fir")
    assert not policy.is_due(0.9)
    assert policy.is_due(1.0)
    policy.was_sent(1.0)
    assert policy.is_due(3.0)
