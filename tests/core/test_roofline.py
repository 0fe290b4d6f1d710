from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from compressbench.core.roofline import (
    ABOVE_CEILING,
    CACHED,
    OVERHEAD,
    Ceilings,
    Demand,
    attained_share,
    compute_seconds,
    fit_affine,
    ideal_seconds,
    ideal_speed_up,
    line_through,
    mbu,
    memory_seconds,
    mfu,
    missing_rates,
    roof,
)

GIB = 1024**3
# copy and bfloat16 products of an H200, measured; int8 by its ratio to bfloat16 in the datasheet
H200 = Ceilings(4.3e12, {"bfloat16": 780e12, "int8": 1560e12}, cache_bytes=60 * 1024**2)
# llama.cpp, tools/quantize/README.md: Llama-3.1-8B, GiB of the file and tokens per second of tg128
LLAMA_CPP = {
    "IQ1_S": (1.87, 79.73), "Q2_K": (2.95, 79.85), "Q3_K_L": (4.02, 69.38), "Q4_K_M": (4.58, 71.93),
    "Q5_K_M": (5.33, 67.23), "Q6_K": (6.14, 58.67), "Q8_0": (7.95, 50.93), "F16": (14.96, 29.17),
}  # fmt: skip


def of(name: str) -> tuple[float, float]:
    """Bytes and seconds per token."""
    size, rate = LLAMA_CPP[name]
    return size * GIB, 1 / rate


def test_seven_billion_weights_in_14_ms_use_half_of_2_terabytes_per_second() -> None:
    assert mbu(14e9, 0.014, 2e12) == pytest.approx(0.5)


def test_gpt_fast_uses_82_63_and_51_percent_of_its_measured_bandwidth() -> None:
    shares = [mbu(rate * 1e9, 1.0, 1700e9) for rate in (1397, 1069, 863)]
    assert [round(100 * share) for share in shares] == [82, 63, 51]


@pytest.mark.parametrize(
    ("speed_up", "byte_ratio", "percent"),
    [(1.88, 3.5, 54), (2.47, 3.27, 76), (2.73, 8, 34)],
    ids=["gpt-fast-int4", "llama.cpp-Q4_K_M", "llama.cpp-IQ1_S"],
)
def test_published_speed_ups_attain_the_published_shares(speed_up: float, byte_ratio: float, percent: int) -> None:
    assert round(100 * attained_share(speed_up, byte_ratio)) == percent


@pytest.mark.parametrize(("name", "share"), [("Q4_K_M", 0.76), ("IQ1_S", 0.34)])
def test_the_rows_of_llama_cpp_give_their_shares_from_bytes_and_tokens(name: str, share: float) -> None:
    (full, slow), (packed, fast) = of("F16"), of(name)
    ideal = ideal_speed_up(Demand(full, {}), Demand(packed, {}), H200)
    assert ideal == pytest.approx(full / packed)
    assert attained_share(slow / fast, full / packed) == pytest.approx(share, abs=0.006)


def test_of_memory_bound_passes_the_attained_share_is_the_ratio_of_both_utilisations() -> None:
    full, packed = Demand(13.3e9, {}), Demand(4.4e9, {})
    slow, fast = 1 / 104.9, 1 / 196.8
    ideal = ideal_speed_up(full, packed, H200)
    assert ideal is not None
    expected = mbu(packed.num_bytes, fast, 4.3e12) / mbu(full.num_bytes, slow, 4.3e12)
    assert attained_share(slow / fast, ideal) == pytest.approx(expected)


def test_the_floor_of_llama_3_8b_on_an_h200_is_287_tokens_per_second() -> None:
    ideal = ideal_seconds(Demand(15.01e9, {"bfloat16": 2 * 7.5e9}), H200)
    assert ideal is not None
    assert 1 / ideal == pytest.approx(287, rel=3e-3)


@pytest.mark.parametrize(("batch", "bound"), [(180, "memory"), (183, "compute")])
def test_decode_turns_compute_bound_at_the_ridge(batch: int, bound: str) -> None:
    weights = 8e9
    found = roof(Demand(2 * weights, {"bfloat16": 2 * weights * batch}), H200, 1.0)
    assert found.bound == bound


def test_a_quarter_of_the_bytes_moves_the_ridge_to_a_quarter_of_the_batch() -> None:
    weights = 8e9
    for batch, bound in ((45, "memory"), (46, "compute")):
        assert roof(Demand(weights / 2, {"bfloat16": 2 * weights * batch}), H200, 1.0).bound == bound


def test_utilisations_and_the_ideal_time_follow_their_definitions() -> None:
    found = roof(Demand(8.6e9, {"bfloat16": 1.56e12}), H200, 0.004)
    assert found.mbu == pytest.approx(0.5)
    assert found.mfu == pytest.approx(0.5)
    assert found.mfu == mfu(1.56e12, 0.004, 780e12)
    assert found.ideal_s == pytest.approx(0.002)
    assert found.overhead_share == pytest.approx(0.5)


def test_products_of_several_types_take_the_sum_of_their_times() -> None:
    demand = Demand(1.0, {"bfloat16": 780e12, "int8": 1560e12})
    assert compute_seconds(demand, H200) == pytest.approx(2.0)
    assert roof(demand, H200, 4.0).mfu == pytest.approx(0.5)


def test_a_row_is_overhead_bound_above_one_half_and_not_at_it() -> None:
    demand = Demand(4.3e12, {})  # exactly a second
    at, above = roof(demand, H200, 2.0), roof(demand, H200, 2.001)
    assert (at.is_overhead_bound, above.is_overhead_bound) == (False, True)
    assert OVERHEAD not in at.notes
    assert OVERHEAD in above.notes


def test_weights_in_the_cache_are_said_to_be_there_and_are_not_called_memory_bound() -> None:
    ceilings = Ceilings(30e9, {"float32": 100e9}, cache_bytes=32 * 1024**2)
    found = roof(Demand(20e6, {"float32": 1e6}), ceilings, 4e-4)
    assert found.mbu > 1
    assert found.bound is None
    assert found.notes == (CACHED,)
    assert found.overhead_share == 0.0


def test_whether_overhead_binds_is_left_open_where_the_cache_could_explain_the_time() -> None:
    ceilings = Ceilings(30e9, {"float32": 100e9}, cache_bytes=32 * 1024**2)
    small = Demand(20e6, {"float32": 1e6})  # 0.67 ms from memory, 0.01 ms to multiply
    assert roof(small, ceilings, 1e-3).is_overhead_bound is None
    assert roof(small, ceilings, 2e-3).is_overhead_bound is True  # even from memory it would be
    busy = Demand(20e6, {"float32": 6e7})  # 0.6 ms to multiply
    assert roof(busy, ceilings, 1e-3).is_overhead_bound is False


def test_more_than_the_ceiling_is_explained_when_no_cache_is_known() -> None:
    found = roof(Demand(20e6, {}), Ceilings(30e9, {}), 4e-4)
    assert found.mbu > 1
    assert found.notes == (ABOVE_CEILING,)
    assert found.overhead_share == 0.0
    assert roof(Demand(20e6, {"float32": 1e9}), Ceilings(300e9, {"float32": 100e9}), 4e-3).notes == (ABOVE_CEILING,)


def test_without_a_matrix_rate_nothing_is_made_up() -> None:
    demand = Demand(4.3e12, {"float16": 1.0, "bfloat16": 1.0, "int4": 0.0})
    assert missing_rates(demand, H200) == ["float16"]
    found = roof(demand, H200, 4.0)
    assert (found.mfu, found.ideal_s, found.bound, found.overhead_share) == (None, None, None, None)
    assert found.mbu == pytest.approx(0.25)
    assert found.is_overhead_bound is None
    assert found.notes == ("no matrix rate of float16 was measured",)
    # reading alone takes more than half
    assert roof(demand, H200, 1.5).is_overhead_bound is False
    assert ideal_speed_up(demand, Demand(1.0, {}), H200) is None
    assert ideal_speed_up(Demand(1.0, {}), demand, H200) is None


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        roof(Demand(1.0, {}), H200, seconds)
    with pytest.raises(ValueError, match="seconds"):
        mfu(1.0, seconds, 1.0)


def test_a_bandwidth_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes_per_s"):
        memory_seconds(Demand(1.0, {}), Ceilings(0.0, {}))
    with pytest.raises(ValueError, match="ideal"):
        attained_share(1.0, 0.0)


def test_the_line_through_f16_and_q8_of_llama_cpp_predicts_what_science_says() -> None:
    sizes, times = zip(of("F16"), of("Q8_0"), strict=True)
    overhead, slope = line_through(sizes, times)
    assert overhead == pytest.approx(3.0e-3, abs=0.05e-3)
    assert 1 / slope == pytest.approx(514e9, rel=0.01)
    predicted = {name: overhead + of(name)[0] * slope for name in ("Q4_K_M", "Q2_K")}
    assert predicted["Q4_K_M"] == pytest.approx(12.6e-3, abs=0.05e-3)
    assert predicted["Q2_K"] == pytest.approx(9.2e-3, abs=0.05e-3)
    assert of("Q4_K_M")[1] == pytest.approx(13.9e-3, abs=0.05e-3)
    assert of("Q2_K")[1] == pytest.approx(12.5e-3, abs=0.05e-3)


def test_the_fit_and_its_intervals_are_those_of_scipy() -> None:
    sizes, times = zip(*map(of, LLAMA_CPP), strict=True)
    fit, peer = fit_affine(sizes, times), stats.linregress(sizes, times)
    reach = stats.t.ppf(0.975, len(sizes) - 2)
    assert fit.overhead_s.value == pytest.approx(peer.intercept)
    assert fit.overhead_s.high == pytest.approx(peer.intercept + reach * peer.intercept_stderr)
    assert fit.seconds_per_byte.low == pytest.approx(peer.slope - reach * peer.stderr)
    assert fit.bytes_per_s is not None
    assert fit.bytes_per_s.value == pytest.approx(1 / peer.slope)
    assert fit.bytes_per_s.low < fit.bytes_per_s.value < fit.bytes_per_s.high


def test_exact_points_give_back_their_law() -> None:
    sizes = [1e9, 2e9, 4e9, 8e9]
    fit = fit_affine(sizes, [3e-3 + size / 514e9 for size in sizes])
    assert fit.overhead_s == pytest.approx((3e-3, 3e-3, 3e-3), rel=1e-6)
    assert fit.bytes_per_s == pytest.approx((514e9, 514e9, 514e9), rel=1e-6)
    assert fit.seconds_at(514e9) == pytest.approx(1.003)
    # 3 ms are half of the time at 3 ms x 514 GB/s
    assert fit.is_overhead_bound_at(1.5e9)
    assert not fit.is_overhead_bound_at(1.6e9)


def test_the_interval_of_the_overhead_holds_the_truth_in_95_of_100_cases() -> None:
    generator, sizes = random.Random(0), [1e9, 2e9, 3e9, 5e9, 8e9]
    held = 0
    for _ in range(1000):
        fit = fit_affine(sizes, [3e-3 + size / 500e9 + generator.gauss(0, 2e-4) for size in sizes])
        held += fit.overhead_s.low <= 3e-3 <= fit.overhead_s.high
    assert 930 <= held <= 970


def test_time_that_does_not_grow_with_bytes_has_no_bandwidth() -> None:
    flat = fit_affine([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0])
    assert flat.bytes_per_s is None
    noisy = fit_affine([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 3.0, 2.0])
    assert noisy.bytes_per_s is not None
    assert noisy.bytes_per_s.high == math.inf


def test_too_few_or_equal_sizes_are_no_fit() -> None:
    with pytest.raises(ValueError, match="at least 4 points"):
        fit_affine([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="two different"):
        fit_affine([2.0] * 4, [1.0, 2.0, 3.0, 4.0])
