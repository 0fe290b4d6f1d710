from __future__ import annotations

import random
from itertools import pairwise

import pytest

from compressbench.meters.unwrapped import Span, Unwrapped


def span_of(counter: Unwrapped, readings: list[tuple[float, int]]) -> Span:
    points = [counter.add(time_s, time_s, raw) for time_s, raw in readings]
    return counter.between(points[0], points[-1])


def test_a_hundred_thousand_random_steps_and_wraps_add_up_exactly() -> None:
    rng = random.Random(1)
    counter = Unwrapped(largest=999, max_rate=100.0)
    time_s, true_total = 0.0, 777
    first = point = counter.add(time_s, time_s, true_total % 1000)
    for _ in range(100_000):
        seconds = rng.uniform(0.0, counter.max_gap_s)
        time_s += seconds
        true_total += rng.randint(0, int(100 * seconds))
        point = counter.add(time_s, time_s, true_total % 1000)
    span = counter.between(first, point)
    assert span.counted == true_total - 777
    assert span.reason == ""


def test_every_reset_to_zero_is_void_or_wrong_by_no_more_than_its_doubt() -> None:
    """All of them: any value before, any count before and after the reset, any time between two readings."""
    largest, num_believed = 39, 0
    for old in range(largest + 1):
        for seconds in range(1, 20):
            for counted_before in range(seconds + 1):
                for counted_after in range(seconds + 1 - counted_before):
                    counter = Unwrapped(largest, max_rate=1.0)
                    span = span_of(counter, [(0.0, old), (float(seconds), counted_after)])
                    if not span.reason:
                        num_believed += 1
                        assert abs(counted_before + counted_after - span.counted) <= span.doubt
    assert num_believed > 1000


def test_the_doubt_is_the_largest_error_that_a_reset_could_cause_and_not_more() -> None:
    largest, seconds = 39, 12
    for old in range(largest + 1):
        for new in range(seconds + 1):
            span = span_of(Unwrapped(largest, max_rate=1.0), [(0.0, old), (float(seconds), new)])
            worst = max(abs(before + new - span.counted) for before in range(seconds - new + 1))
            assert span.reason or span.doubt == worst


def test_a_step_from_high_up_has_no_doubt() -> None:
    """After a reset to zero the counter could not have come back so far."""
    assert span_of(Unwrapped(999, 10.0), [(0.0, 500), (1.0, 505)]) == Span(5, 0.0, "")


def test_a_wrap_is_counted_and_carries_its_doubt() -> None:
    # 6 up to the end, 2 after it; a reset at the wrap could have hidden up to 2 more, or made 6 of nothing
    assert span_of(Unwrapped(999, 10.0), [(0.0, 994), (1.0, 2)]) == Span(8, 6.0, "")
    assert span_of(Unwrapped(999, 10.0), [(0.0, 999), (1.0, 0)]) == Span(1, 9.0, "")


@pytest.mark.parametrize(("old", "new"), [(900, 0), (500, 499), (100, 111), (0, 11), (999, 10)])
def test_a_step_that_nothing_can_have_counted_is_a_reset(old: int, new: int) -> None:
    span = span_of(Unwrapped(999, 10.0), [(0.0, old), (1.0, new)])
    assert span.reason.startswith(f"counter_reset: {old} then {new} within 1 s")


def test_a_reset_voids_the_spans_that_touch_it_and_no_others() -> None:
    counter = Unwrapped(999, 10.0)
    points = [counter.add(time_s, time_s, raw) for time_s, raw in enumerate([500, 505, 40, 45, 50])]
    reasons = [bool(counter.between(earlier, later).reason) for earlier, later in pairwise(points)]
    assert reasons == [False, True, False, False]
    assert counter.between(points[2], points[4]) == Span(10, 0.0, "")
    assert counter.between(points[0], points[4]).reason.startswith("counter_reset")


def test_a_long_gap_is_void_although_the_step_is_plausible() -> None:
    """A counter that wrapped twice in it looks the same."""
    counter = Unwrapped(999, 10.0)
    assert counter.max_gap_s == 50.0
    assert span_of(counter, [(0.0, 100), (50.0, 300)]).reason == ""
    assert span_of(Unwrapped(999, 10.0), [(0.0, 100), (50.1, 300)]).reason.startswith("gap of 50.1 s")
    assert span_of(Unwrapped(999, 10.0, max_gap_s=3.0), [(0.0, 100), (3.1, 110)]).reason.startswith("gap of 3.1 s")


def test_a_slow_reading_counts_from_its_beginning_to_the_end_of_the_next() -> None:
    counter = Unwrapped(999, 10.0)
    begin = counter.add(0.0, 5.0, 100)
    end = counter.add(5.0, 6.0, 160)
    assert counter.between(begin, end).reason == ""
    assert counter.between(begin, counter.add(6.0, 6.0, 171)).reason.startswith("counter_reset")


def test_a_value_may_be_a_margin_older_than_its_reading() -> None:
    readings = [(0.0, 100), (1.0, 120)]
    assert span_of(Unwrapped(999, 10.0), readings).reason
    assert span_of(Unwrapped(999, 10.0, margin_s=1.0), readings).reason == ""


def test_another_counter_that_went_on_takes_the_doubt_away() -> None:
    witness, counter = Unwrapped(999, 10.0), Unwrapped(999, 10.0)
    witness.add(0.0, 0.0, 500)
    begin = counter.add(0.0, 0.0, 994)
    assert witness.excludes_reset(1.0, 503)
    end = counter.add(1.0, 1.0, 2, is_reset_excluded=True)
    assert counter.between(begin, end) == Span(8, 0.0, "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (500, 500),  # stands still: it would do so whatever happened
        (5, 9),  # so low that it could have come there after a reset
        (994, 4),  # wrapped itself, or was reset
        (500, 1003),  # out of its range
    ],
)
def test_a_witness_that_proves_nothing_is_not_believed(old: int, new: int) -> None:
    witness = Unwrapped(999, 10.0)
    witness.add(0.0, 0.0, old)
    assert not witness.excludes_reset(1.0, new)


def test_a_witness_has_nothing_to_say_before_its_first_reading_and_after_a_lost_one() -> None:
    witness = Unwrapped(999, 10.0)
    assert not witness.excludes_reset(1.0, 500)
    witness.add(0.0, 0.0, 400)
    witness.lose("unplugged")
    assert not witness.excludes_reset(1.0, 401)


@pytest.mark.parametrize("raw", [-1, 1000, 10**18])
def test_a_value_out_of_range_is_void(raw: int) -> None:
    counter = Unwrapped(999, 10.0)
    begin = counter.add(0.0, 0.0, 100)
    counter.add(1.0, 1.0, raw)
    after = counter.add(2.0, 2.0, 110)
    assert counter.between(begin, after).reason == f"counter out of range: {raw} is not within 0 and 999"
    assert counter.between(after, counter.add(3.0, 3.0, 115)) == Span(5, 0.0, "")


def test_a_lost_reading_gives_its_reason_once() -> None:
    counter = Unwrapped(999, 10.0)
    begin = counter.add(0.0, 0.0, 100)
    counter.lose("unplugged")
    end = counter.lose("unplugged")
    assert counter.between(begin, end).reason == "unplugged"


def test_polls_come_closer_towards_the_wrap_so_that_two_close_ones_enclose_it() -> None:
    largest, rate, raw, time_s = 65_532_610_987, 1e9, 65_000_000_000.0, 0.0
    counter = Unwrapped(largest, rate)
    assert counter.poll_s == pytest.approx(65.5 / 4, rel=1e-3)
    waits = []
    while raw <= largest:
        waits.append(counter.next_poll_s(int(raw), longest_s=1.0, shortest_s=0.005))
        time_s += waits[-1]
        raw += 225e6 * waits[-1]
    assert waits[0] < 1.0
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] == 0.005
    assert len(waits) < 100


def test_a_counter_at_its_greatest_rate_can_not_pass_its_end_between_two_polls() -> None:
    counter = Unwrapped(999, 10.0)
    for raw in range(1, 1000):
        wait_s = counter.next_poll_s(raw, longest_s=1e9, shortest_s=0.0)
        assert raw + 10.0 * wait_s < 1000
        assert wait_s <= counter.poll_s
