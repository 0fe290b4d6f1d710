"""The disturbance rule at its boundaries, what counts as no evidence, and rounds to repeat."""

from __future__ import annotations

import pytest

from compressbench.core.errors import RecordError
from compressbench.records.evidence import (
    NO_EVIDENCE,
    NO_GPU_EVIDENCE,
    THROTTLE_BITS,
    DisturbanceRule,
    Evidence,
    contention,
    disturbances,
    disturbed_rounds,
    is_contended,
)

RULE = DisturbanceRule()


def reasons(evidence: Evidence, arms: tuple[str, ...] = (), rule: DisturbanceRule = RULE) -> list[tuple[str, ...]]:
    columns = [getattr(evidence, name) for name in Evidence.model_fields if name not in ("notes", "unread")]
    return disturbances(evidence, rule, max(len(column) for column in columns), arms)


@pytest.mark.parametrize(
    ("column", "at_the_limit", "above", "reason"),
    [
        ("foreign_share", 0.05, 0.0501, "foreign load"),
        ("steal_share", 0.02, 0.0201, "steal"),
        ("run_queue_wait_share", 0.02, 0.0201, "run-queue wait"),
        ("throttled_share", 0.0, 1e-6, "CPU quota"),
        ("gpu_num_other_processes", 0, 1, "other processes on the GPU"),
    ],
)
def test_a_block_is_disturbed_above_the_limit_and_not_at_it(
    column: str, at_the_limit: float, above: float, reason: str
) -> None:
    quiet = {"foreign_share": (0.0, 0.0, 0.0)}
    evidence = Evidence(**{**quiet, column: (0.0, at_the_limit, above)})
    assert reasons(evidence) == [(), (), (reason,)]


@pytest.mark.parametrize(("column", "limit"), [("foreign_share", 0.05), ("steal_share", 0.02)])
def test_what_a_tick_of_the_counter_can_make_up_disturbs_nothing(column: str, limit: float) -> None:
    shares = (limit + 0.0199, limit + 0.0201, limit + 0.0201)
    evidence = Evidence(**{"run_queue_wait_share": (0.0,) * 3, column: shares, "share_resolution": (0.02, 0.02, None)})
    found = reasons(evidence)
    assert [bool(each) for each in found] == [False, True, True]


def test_a_single_tick_of_steal_in_the_shortest_tier_is_nothing() -> None:
    tick_s, block_s, num_cores = 0.01, 0.25, 2
    share = tick_s / (block_s * num_cores)
    one = Evidence(foreign_share=(share,), steal_share=(share,), share_resolution=(share,))
    assert reasons(one) == [()]


def test_waiting_gets_no_allowance_for_ticks_because_it_is_counted_in_nanoseconds() -> None:
    evidence = Evidence(foreign_share=(0.0,), run_queue_wait_share=(0.021,), share_resolution=(0.04,))
    assert reasons(evidence) == [("run-queue wait",)]


def test_all_reasons_of_a_block_are_given() -> None:
    evidence = Evidence(foreign_share=(0.5,), steal_share=(0.5,), run_queue_wait_share=(0.5,), throttled_share=(0.5,))
    assert reasons(evidence) == [("foreign load", "steal", "run-queue wait", "CPU quota")]


def test_a_block_of_which_nothing_is_known_is_not_clean() -> None:
    assert disturbances(Evidence(), RULE, 2) == [(NO_EVIDENCE,), (NO_EVIDENCE,)]
    assert is_contended(disturbances(Evidence(), RULE, 2), RULE)
    only_some = Evidence(foreign_share=(None, 0.0), run_queue_wait_share=(None, None))
    assert reasons(only_some) == [(NO_EVIDENCE,), ()]


def test_own_cpu_time_and_a_quota_that_did_not_bite_are_no_evidence_that_nobody_else_computed() -> None:
    evidence = Evidence(cpu_share=(1.0,), throttled_share=(0.0,), steal_share=(0.0,), pressure_share=(0.0,))
    assert reasons(evidence) == [(NO_EVIDENCE,)]


@pytest.mark.parametrize("column", ["foreign_share", "run_queue_wait_share"])
def test_one_of_the_two_that_see_others_is_enough(column: str) -> None:
    assert reasons(Evidence(**{column: (0.0,)})) == [()]


def test_a_gpu_that_was_to_be_watched_and_could_not_be_read_is_not_clean() -> None:
    unread = {"gpu_throttle_reasons": "NVML failed", "gpu_sm_clock_hz": "NVML failed"}
    evidence = Evidence(foreign_share=(0.0,), unread=unread)
    assert reasons(evidence) == [(NO_GPU_EVIDENCE,)]
    assert reasons(evidence.model_copy(update={"gpu_sm_clock_hz": (1e9,)})) == [()]


def test_a_run_on_the_cpu_needs_no_evidence_of_a_gpu() -> None:
    assert reasons(Evidence(foreign_share=(0.0,), unread={"cpu_frequency_hz": "no cpufreq"})) == [()]


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0x4, "SwPowerCap"), (0x8, "HwSlowdown"), (0x10, "SyncBoost"), (0x20, "SwThermalSlowdown"),
        (0x40, "HwThermalSlowdown"), (0x80, "HwPowerBrakeSlowdown"), (0x48, "HwSlowdown, HwThermalSlowdown"),
    ],
)  # fmt: skip
def test_every_bit_that_slows_a_gpu_down_disturbs_and_is_named(bits: int, names: str) -> None:
    evidence = Evidence(foreign_share=(0.0,), gpu_throttle_reasons=(float(bits),))
    assert reasons(evidence) == [(f"GPU throttled ({names})",)]


@pytest.mark.parametrize("bits", [0x0, 0x1, 0x2, 0x100])  # nothing, idle, application clocks, display clocks
def test_bits_that_are_no_throttling_disturb_nothing(bits: int) -> None:
    assert not bits & THROTTLE_BITS
    assert reasons(Evidence(foreign_share=(0.0,), gpu_throttle_reasons=(float(bits),))) == [()]


def test_the_bits_are_those_of_nvml() -> None:
    import pynvml

    ours = (
        pynvml.nvmlClocksEventReasonSwPowerCap | pynvml.nvmlClocksThrottleReasonHwSlowdown
        | pynvml.nvmlClocksEventReasonSyncBoost | pynvml.nvmlClocksEventReasonSwThermalSlowdown
        | pynvml.nvmlClocksThrottleReasonHwThermalSlowdown | pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown
    )  # fmt: skip
    assert ours == THROTTLE_BITS


def test_a_bit_without_a_name_that_a_rule_asks_for_is_given_as_a_number() -> None:
    evidence = Evidence(foreign_share=(0.0,), gpu_throttle_reasons=(float(0x100),))
    rule = DisturbanceRule(throttle_bits=0x100)
    assert reasons(evidence, rule=rule) == [("GPU throttled (0x100)",)]


@pytest.mark.parametrize(
    ("column", "reason"), [("gpu_sm_clock_hz", "GPU clock"), ("gpu_memory_clock_hz", "GPU memory clock")]
)
def test_a_clock_disturbs_if_it_is_more_than_two_percent_lower_than_usual(column: str, reason: str) -> None:
    clocks = (1000e6, 1000e6, 1000e6, 980.1e6, 979e6)
    evidence = Evidence(**{"foreign_share": (0.0,) * 5, column: clocks})
    assert reasons(evidence) == [(), (), (), (), (f"{reason} dropped",)]


def test_one_block_that_was_faster_than_all_others_does_not_disturb_them() -> None:
    clocks = (1980e6, *[1755e6] * 9)
    assert reasons(Evidence(foreign_share=(0.0,) * 10, gpu_sm_clock_hz=clocks)) == [()] * 10


def test_a_run_that_was_slowed_down_for_most_of_its_blocks_is_contended() -> None:
    clocks = (*[1980e6] * 3, *[1755e6] * 7)
    found = reasons(Evidence(foreign_share=(0.0,) * 10, gpu_sm_clock_hz=clocks))
    assert found == [()] * 3 + [("GPU clock dropped",)] * 7
    assert is_contended(found, RULE)


def test_clocks_are_compared_within_an_arm_because_its_own_load_moves_them() -> None:
    evidence = Evidence(foreign_share=(0.0,) * 6, gpu_sm_clock_hz=(1980e6, 1700e6, 1980e6, 1700e6, 1980e6, 1600e6))
    assert reasons(evidence, arms=("baseline", "candidate") * 3) == [()] * 5 + [("GPU clock dropped",)]
    assert [bool(each) for each in reasons(evidence)] == [False, True, False, True, False, True]


def test_a_block_whose_clock_is_unknown_is_not_compared() -> None:
    evidence = Evidence(foreign_share=(0.0,) * 3, gpu_sm_clock_hz=(1e9, None, 1e9))
    assert reasons(evidence) == [(), (), ()]


@pytest.mark.parametrize("num_blocks", [1, 3])
def test_a_column_of_another_length_than_the_blocks_is_an_error(num_blocks: int) -> None:
    with pytest.raises(RecordError, match=f"'steal_share' has 2 values for {num_blocks} blocks"):
        disturbances(Evidence(steal_share=(0.0, 0.0)), RULE, num_blocks)


def test_as_many_arms_as_blocks_are_needed() -> None:
    with pytest.raises(RecordError, match="1 arms for 2 blocks"):
        disturbances(Evidence(foreign_share=(0.0, 0.0)), RULE, 2, ("baseline",))


@pytest.mark.parametrize(
    ("num_clean", "num_blocks", "expected"),
    [(4, 5, False), (3, 5, True), (79, 100, True), (80, 100, False), (0, 0, True)],
)
def test_a_row_with_less_than_four_fifths_of_its_blocks_clean_is_contended(
    num_clean: int, num_blocks: int, expected: bool
) -> None:
    disturbed: list[tuple[str, ...]] = [()] * num_clean + [("steal",)] * (num_blocks - num_clean)
    assert is_contended(disturbed, RULE) is expected
    assert bool(contention(disturbed, RULE)) is expected


def test_the_share_of_clean_blocks_is_counted_without_rounding_errors() -> None:
    for num_blocks in range(1, 400):
        for num_clean in range(num_blocks + 1):
            disturbed: list[tuple[str, ...]] = [()] * num_clean + [("steal",)] * (num_blocks - num_clean)
            if abs(10 * num_clean - 8 * num_blocks) <= 1:
                assert is_contended(disturbed, RULE) == (10 * num_clean < 8 * num_blocks)
    # 0.55 x 100 is more than 55 in floating point
    assert not is_contended([()] * 55 + [("steal",)] * 45, DisturbanceRule(min_clean_share=0.55))


def test_contention_says_what_it_was_with_the_most_frequent_first() -> None:
    disturbed = [(), ("steal",), ("foreign load", "steal"), ("steal",)]
    assert contention(disturbed, RULE) == "1 of 4 blocks are clean: steal in 3, foreign load in 1"
    assert contention([(), ()], RULE) == ""
    assert contention([], RULE) == "0 of 0 blocks are clean"


def test_one_disturbed_block_makes_its_round_disturbed() -> None:
    evidence = Evidence(
        foreign_share=(0.0, 0.0, 0.9, 0.0, 0.9, 0.9, 0.0, 0.0), steal_share=(0.0, 0.0, 0.9, 0.0, 0.0, 0.9, 0.0, 0.0)
    )
    found = disturbed_rounds(evidence, RULE, [0, 0, 1, 1, 2, 2, 3, 3])
    assert found == {1: ("foreign load", "steal"), 2: ("foreign load", "steal")}
    assert disturbed_rounds(evidence.model_copy(update={"foreign_share": (0.0,) * 8}), RULE, [0] * 8) == {0: ("steal",)}


def test_disturbed_rounds_come_in_order_and_no_evidence_disturbs_all() -> None:
    assert list(disturbed_rounds(Evidence(), RULE, [4, 2, 4])) == [2, 4]


def test_evidence_survives_json() -> None:
    evidence = Evidence(foreign_share=(0.1, None), unread={"steal_share": "none"}, notes=("ECC: on",))
    assert Evidence.model_validate_json(evidence.model_dump_json()) == evidence
