"""The search for the highest rate on a clock that is set by hand, for queues whose answer is known."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from queue_parts import (
    Services,
    Worker,
    constant,
    exponential,
    highest_load_md1,
    highest_rate_mm1,
    served_one_by_one,
    tools,
)

from compressbench.core.progress import SilentProgress
from compressbench.core.server_rates import brackets, highest_rate, rate_ratio
from compressbench.core.statistics import Interval
from compressbench.measure.arrivals import arrivals_ns, unit_arrivals
from compressbench.measure.queue_bound import Judge
from compressbench.measure.server import ServerRule, find_highest_rate
from compressbench.records.measurement import Arm, RateTrial, Server
from compressbench.testing import FakeClock

MS = 1_000_000


def search(
    rule: ServerRule, baseline: Services, candidate: Services | None = None, late_ns: int = 0
) -> tuple[Server, dict[Arm, Worker]]:
    clock = FakeClock()
    workers: dict[Arm, Worker] = {"baseline": Worker(clock, baseline)}
    if candidate is not None:
        workers["candidate"] = Worker(clock, candidate)
    return find_highest_rate(workers, rule, tools=tools(clock, late_ns)), workers


def rate_of(found: Server, arm: Arm = "baseline") -> float:
    highest = highest_rate(found.trials, arm)
    assert highest is not None
    return highest.value


@pytest.mark.parametrize("limit_ms", [4, 10, 20])
def test_constant_services_reach_the_rate_of_queueing_theory_but_for_what_few_queries_can_show(limit_ms: int) -> None:
    found, _ = search(ServerRule(0.99, limit_ms / 1e3, rounds=1, budget_s=1000.0), constant(MS))
    truth = 1000 * highest_load_md1(limit_ms, 0.01)
    assert found.trials[0].num_queries == 6620
    assert 0.92 * truth < rate_of(found) < truth
    bracket = brackets(found.trials, "baseline")[0]
    assert bracket.not_kept is not None
    assert bracket.not_kept / rate_of(found) <= 1.02 + 1e-9
    assert found.capacity_per_s == {"baseline": 1000.0}
    assert found.reasons == {}


@pytest.mark.parametrize(("quantile", "limit_ms"), [(0.5, 1.5), (0.9, 4)])
def test_exponential_services_reach_no_more_than_the_rate_of_queueing_theory(quantile: float, limit_ms: float) -> None:
    """Latencies are exponential with mu - lambda, so that the highest rate is mu - ln(1 / (1 - q)) / limit."""
    truth = highest_rate_mm1(1000.0, limit_ms / 1e3, 1 - quantile)
    rule = ServerRule(quantile, limit_ms / 1e3, 1, 20.0)
    rates = [rate_of(search(rule._replace(seed=seed), exponential(MS, seed))[0]) for seed in range(3)]
    assert sum(rate > truth for rate in rates) <= 1
    assert max(rates) < 1.05 * truth
    assert sum(rates) / len(rates) > 0.6 * truth


def test_twice_as_fast_within_half_the_limit_is_twice_the_rate() -> None:
    slow, _ = search(ServerRule(0.9, 0.04, 1, 120.0), constant(4 * MS))
    fast, _ = search(ServerRule(0.9, 0.02, 1, 60.0), constant(2 * MS))
    assert fast.trials[0].num_queries == slow.trials[0].num_queries == 2000
    assert rate_of(fast) == pytest.approx(2 * rate_of(slow), rel=1e-6)


def test_an_arm_against_itself_has_the_ratio_one_and_a_faster_one_a_higher_ratio() -> None:
    found, _ = search(ServerRule(0.95, 0.02, 3, 60.0), constant(2 * MS), constant(2 * MS))
    same = rate_ratio(found.trials, "candidate")
    assert isinstance(same, Interval)
    assert same.low < same.value == 1.0 < same.high < 1.03
    found, _ = search(ServerRule(0.95, 0.02, 3, 60.0), constant(2 * MS), constant(1_800_000))
    faster = rate_ratio(found.trials, "candidate")
    assert isinstance(faster, Interval)
    # 2 / 1.8, and perhaps a little more because the limit is longer in service times
    assert 1.05 < faster.low < 2 / 1.8 < faster.high < 1.2
    assert found.num_rounds == 3


def test_arms_take_turns_and_in_being_first() -> None:
    found, _ = search(ServerRule(0.9, 0.02, 2, 300.0), constant(2 * MS), constant(2 * MS))
    letters = "".join(trial.arm[0] for trial in found.trials)
    # two searches of equal length
    assert letters == "".join(itertools.islice(itertools.cycle("bccb"), len(letters)))
    assert len(letters) >= 8


def test_every_query_of_every_trial_is_what_the_recorded_seed_and_rate_say() -> None:
    """Nothing is skipped, put off, or counted from another moment than its scheduled arrival."""
    services = exponential(2 * MS, 4)
    taken: list[int] = []

    def noted(number: int) -> int:
        taken.append(services(number))
        return taken[-1]

    found, workers = search(ServerRule(0.9, 0.015, 2, 100.0, seed=77), noted)
    position, sequence = 0, [index for index, _ in workers["baseline"].begun]
    assert len(found.trials) > 4
    for trial in found.trials:
        count = len(trial.latencies_ns)
        arrivals = arrivals_ns(unit_arrivals(trial.num_queries, found.seed + trial.round), trial.rate_per_s)[:count]
        position = _next_trial(sequence, position, count)
        assert list(trial.latencies_ns) == served_one_by_one(arrivals, taken[position : position + count])
        assert trial.load == pytest.approx(trial.rate_per_s * sum(taken[position : position + count]) / count / 1e9)
        position += count


def _next_trial(sequence: list[int], start: int, count: int) -> int:
    """Where 0, 1, ..., count - 1 begins; the calls that warm up before a trial are fewer."""
    return next(at for at in range(start, len(sequence)) if sequence[at : at + count] == list(range(count)))


def test_a_round_begins_where_its_own_calls_say_and_not_where_the_round_before_ended() -> None:
    """The machine gets twice as fast after the first round."""
    clock, taken_ns = FakeClock(), [4 * MS]

    class Faster(SilentProgress):
        @contextmanager
        def bar(self, description: str, total: float) -> Iterator[Any]:
            assert (description, total) == ("search the highest rate", 2)
            yield SimpleNamespace(advance=lambda: taken_ns.__setitem__(0, 2 * MS))

    worker = Worker(clock, lambda number: taken_ns[0])
    found = find_highest_rate({"baseline": worker}, ServerRule(0.9, 0.04, 2, 120.0), Faster(), tools(clock))
    first, second = brackets(found.trials, "baseline").values()
    began = next(trial.rate_per_s for trial in found.trials if trial.round == 1)
    assert first.kept is not None
    assert second.kept is not None
    assert second.kept == pytest.approx(2 * first.kept, rel=0.1)
    assert began == pytest.approx(second.kept, rel=0.1)
    assert found.capacity_per_s["baseline"] == pytest.approx(1000 / 2.67, rel=0.05)


def test_both_arms_get_the_same_inputs_at_the_same_moments() -> None:
    found, workers = search(ServerRule(0.9, 0.02, 2, 60.0), constant(2 * MS), constant(2 * MS))
    of_arm = {
        arm: [(trial.round, trial.rate_per_s, trial.latencies_ns) for trial in found.trials if trial.arm == arm]
        for arm in workers
    }
    assert of_arm["baseline"] == of_arm["candidate"]
    assert {number for number, _, _ in of_arm["baseline"]} == {0, 1}
    inputs = {arm: [index for index, _ in worker.begun] for arm, worker in workers.items()}
    assert inputs["baseline"] == inputs["candidate"]


def test_a_limit_below_the_service_time_is_a_result_with_its_reason() -> None:
    found, _ = search(ServerRule(0.99, 0.005, 3, 300.0), constant(6 * MS), constant(2 * MS))
    assert "no rate can be kept: p99 of" in found.reasons["baseline"]
    assert "already 0.006 s, above the limit of 0.005 s" in found.reasons["baseline"]
    assert {trial.arm for trial in found.trials} == {"candidate"}
    assert rate_of(found, "candidate") > 50
    assert highest_rate(found.trials, "baseline") is None
    assert isinstance(rate_ratio(found.trials, "candidate"), str)


def test_services_that_get_slow_only_under_load_are_found_out_by_trials() -> None:
    """Calls one after the other take 1 ms; the first after a pause takes 8, as where a cache gets cold."""
    clock = FakeClock()
    last = [0]

    def after_a_pause(_: int) -> int:
        paused = clock.now_ns - last[0] > 10_000
        last[0] = clock.now_ns + (8 if paused else 1) * MS
        return (8 if paused else 1) * MS

    found = find_highest_rate(
        {"baseline": Worker(clock, after_a_pause)}, ServerRule(0.9, 0.007, 1, 500.0), None, tools(clock)
    )
    assert "no rate was kept, down to" in found.reasons["baseline"]
    assert found.trials
    assert not any(trial.is_kept for trial in found.trials)
    assert found.num_rounds == 1


def test_a_budget_that_is_too_short_is_refused_with_what_is_needed() -> None:
    found, workers = search(ServerRule(0.99, 0.05, 3, 20.0), constant(5 * MS), constant(5 * MS))
    assert not found.trials
    assert found.num_rounds == 0
    assert set(found.reasons) == {"baseline", "candidate"}
    assert "p99 needs 662 queries in every trial here, about" in found.reasons["baseline"]
    assert "state a lower quantile" in found.reasons["baseline"]
    assert workers["baseline"].num_calls < 500


def test_a_slow_model_is_refused_before_hours_are_spent() -> None:
    """A generation of 4 s: 662 queries would take an hour in every trial."""
    found, workers = search(ServerRule(0.99, 30.0, 3, 300.0), constant(4000 * MS))
    assert "p99 needs 662" in found.reasons["baseline"]
    assert workers["baseline"].num_calls <= 12


def test_services_that_cluster_need_more_queries_and_the_plan_says_how_many() -> None:
    """Stretches of 30 slow calls among 570 fast ones: 662 queries hold one such stretch, which says nothing of p99."""
    found, _ = search(ServerRule(0.99, 0.05, 3, 60.0), lambda number: (20 if number % 600 < 30 else 1) * MS)
    assert not found.trials
    needed = int(found.reasons["baseline"].partition("p99 needs ")[2].partition(" ")[0])
    assert needed in (2 * 662, 4 * 662, 8 * 662)


def test_where_not_all_rounds_fit_fewer_are_run_and_their_trials_are_long_enough() -> None:
    for budget_s, num_rounds in ((17.0, 1), (35.0, 3), (70.0, 5)):
        found, _ = search(ServerRule(0.99, 0.02, 5, budget_s), constant(2 * MS))
        assert found.num_rounds == num_rounds
        assert found.trials[0].num_queries >= 662


def test_the_budget_is_kept() -> None:
    for budget_s in (40.0, 100.0):
        clock = FakeClock()
        workers: dict[Arm, Worker] = {
            "baseline": Worker(clock, constant(4 * MS)), "candidate": Worker(clock, exponential(2 * MS, 0))
        }  # fmt: skip
        begun = clock()
        found = find_highest_rate(workers, ServerRule(0.95, 0.05, 3, budget_s), None, tools(clock))
        assert found.trials
        assert (clock() - begun) / 1e9 < 1.1 * budget_s


def test_a_search_that_the_end_of_the_budget_breaks_off_keeps_what_it_has_and_says_so() -> None:
    """The machine gets four times slower after its services were timed, so that trials take longer than planned."""

    def services(number: int) -> int:
        return (1 if number < 2200 else 4) * MS

    found, _ = search(ServerRule(0.99, 0.02, 3, 40.0), services)
    assert found.trials
    assert found.num_rounds < 3
    assert "the budget of 40 s ended in round" in found.reasons["baseline"]


def test_a_rate_above_the_capacity_is_not_kept_however_long_the_limit() -> None:
    """Services get slower by a third when the search begins; a short trial ends before the queue reaches the limit."""
    found, _ = search(ServerRule(0.9, 1.0, 1, 300.0), lambda number: MS if number < 2100 else 1_300_000)
    assert rate_of(found) < 1e9 / 1_300_000
    endless = [trial for trial in found.trials if trial.load is not None and trial.load >= 1]
    assert any("the queue has no end" in trial.reason for trial in endless)
    assert not any(trial.is_kept for trial in endless)


def test_a_stall_that_calls_one_after_the_other_hide_costs_the_server_its_rate() -> None:
    """One call in 200 takes 150 ms: p99 of 5 ms calls is 5 ms in a closed loop, and the queue behind it is long."""
    stalls: Services = lambda number: (150 if number % 200 == 199 else 5) * MS  # noqa: E731
    smooth, _ = search(ServerRule(0.99, 0.05, 1, 3000.0), constant(5_725_000))
    stalling, _ = search(ServerRule(0.99, 0.05, 1, 3000.0), stalls)
    assert "baseline" not in stalling.reasons or "no rate was kept" in stalling.reasons["baseline"]
    highest = highest_rate(stalling.trials, "baseline")
    assert highest is None or highest.value < 0.3 * rate_of(smooth)


def test_giving_up_changes_no_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    def decisions(trials: tuple[RateTrial, ...]) -> list[tuple[str, float, bool]]:
        return [(trial.arm, trial.rate_per_s, trial.is_kept) for trial in trials]

    rule, seeds = ServerRule(0.95, 0.02, 1, 20.0), range(3)
    with_it = [search(rule._replace(seed=seed), constant(2 * MS))[0] for seed in seeds]
    assert any(len(trial.latencies_ns) < trial.num_queries for found in with_it for trial in found.trials)
    monkeypatch.setattr(Judge, "max_over", lambda self, rate, service: 10**9)
    without = [search(rule._replace(seed=seed), constant(2 * MS))[0] for seed in seeds]
    assert all(len(trial.latencies_ns) == trial.num_queries for found in without for trial in found.trials)
    assert [decisions(found.trials) for found in with_it] == [decisions(found.trials) for found in without]


def test_the_first_token_counts_from_the_scheduled_arrival_too() -> None:
    clock = FakeClock()
    worker = Worker(clock, constant(10 * MS), first_token_share=0.3)
    found = find_highest_rate({"baseline": worker}, ServerRule(0.9, 0.06, 1, 200.0), None, tools(clock))
    for trial in found.trials:
        assert trial.first_token_ns == tuple(latency - 7 * MS for latency in trial.latencies_ns)
    without, _ = search(ServerRule(0.9, 0.06, 1, 200.0), constant(10 * MS))
    assert all(trial.first_token_ns == () for trial in without.trials)


def test_how_late_the_harness_was_is_recorded_and_part_of_the_latencies() -> None:
    found, _ = search(ServerRule(0.9, 0.02, 1, 100.0), constant(2 * MS), late_ns=130_000)
    for trial in found.trials:
        assert trial.lateness_p99_s == pytest.approx(130e-6)
        assert trial.latencies_ns[0] == 2_130_000


def test_a_seed_gives_the_same_search_and_another_seed_other_arrivals() -> None:
    rule = ServerRule(0.9, 0.02, 1, 20.0, seed=5)
    once, again = search(rule, constant(2 * MS))[0], search(rule, constant(2 * MS))[0]
    assert once == again
    other = search(rule._replace(seed=6), constant(2 * MS))[0]
    assert other.trials[0].latencies_ns != once.trials[0].latencies_ns


def test_every_trial_is_kept_or_says_why_not_and_survives_being_written_down() -> None:
    found, _ = search(ServerRule(0.95, 0.02, 1, 30.0), constant(2 * MS), exponential(MS, 2))
    assert {trial.is_kept for trial in found.trials} == {True, False}
    for trial in found.trials:
        assert trial.is_kept == (not trial.reason)
        if trial.is_kept:
            assert trial.quantile_bound_s is not None
            assert trial.quantile_bound_s <= 0.02
    assert Server.model_validate_json(found.model_dump_json()) == found


def test_garbage_collection_rests_in_trials_and_is_restored_when_a_call_raises() -> None:
    seen: list[bool] = []

    def look(number: int) -> int:
        seen.append(gc.isenabled())
        if number == 1500:
            raise RuntimeError("device lost")
        return 2 * MS

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="device lost"):
        search(ServerRule(0.9, 0.02, 1, 100.0), look)
    assert gc.isenabled()
    assert seen[-1] is False
    assert seen[0] is True


class Broken(Worker):
    def __call__(self, index: int) -> None:
        raise MemoryError


def test_an_error_of_the_model_is_not_taken_for_a_slow_answer() -> None:
    clock = FakeClock()
    call: Callable[[], Server] = lambda: find_highest_rate(  # noqa: E731
        {"baseline": Broken(clock, constant(1))}, ServerRule(0.9, 0.02), None, tools(clock)
    )
    with pytest.raises(MemoryError):
        call()
