"""Units in names, and numbers as people read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressbench.core.units import humanize, three_digits, unit_of
from compressbench.report.rows import CELL_NAMES

PREFIXES = {"G": 1e9, "M": 1e6, "k": 1e3, "": 1.0, "m": 1e-3, "µ": 1e-6, "n": 1e-9}
UNITS = {
    **dict.fromkeys(("latency_p50_s", "latency_p95_s", "latency_p99_s", "ttft_p50_s", "ttft_p99_s", "tpot_p50_s"), "s"),
    **dict.fromkeys(("itl_p50_s", "itl_p99_s", "load_seconds", "first_call_seconds", "compress_seconds"), "s"),
    **dict.fromkeys(("throughput_per_s", "output_tokens_per_s", "max_rate_per_s"), "1/s"),
    "energy_j_per_inference": "J/inference",
    "energy_net_j_per_inference": "J/inference",
    "energy_prefill_j_per_inference": "J/inference",
    "energy_j_per_output_token": "J/output token",
    "energy_decode_j_per_output_token": "J/output token",
    "energy_j_per_total_token": "J/token",
    "energy_j_per_correct": "J/correct answer",
    "energy_wh_per_1000_queries": "Wh/1000 queries",
    **dict.fromkeys(("peak_memory_bytes", "peak_reserved_memory_bytes", "weights_memory_bytes"), "B"),
    **dict.fromkeys(("kv_cache_memory_bytes", "disk_bytes", "compress_peak_memory_bytes"), "B"),
    **dict.fromkeys(("resident_memory_bytes",), "B"),
    **dict.fromkeys(("export_seconds", "compile_seconds", "open_seconds"), "s"),
    **dict.fromkeys(("num_parameters", "sparsity", "mbu", "mfu"), ""),
    "effective_bits": "bit",
    "compress_energy_j": "J",
}


def test_every_cell_has_the_unit_that_its_name_says() -> None:
    assert {name: unit_of(name) for name in CELL_NAMES} == UNITS


@pytest.mark.parametrize(
    ("name", "unit"), [("power_w", "W"), ("s", ""), ("accuracy", ""), ("f1_macro", ""), ("j", ""), ("", "")]
)
def test_a_letter_is_a_unit_only_behind_an_underscore(name: str, unit: str) -> None:
    assert unit_of(name) == unit


def read_back(text: str, unit: str) -> float:
    found = re.fullmatch(r"(-?[0-9.]+) ([GMkmµn]?)" + unit, text)
    assert found, text
    return float(found[1]) * PREFIXES[found[2]]


@given(st.floats(1e-9, 9.99e11), st.sampled_from(["s", "J", "B"]), st.booleans())
def test_a_value_reads_back_within_half_a_percent(value: float, unit: str, is_negative: bool) -> None:
    value = -value if is_negative else value
    assert read_back(humanize(value, unit), unit) == pytest.approx(value, rel=5.01e-3)


@given(st.floats(1e-9, 9.99e11))
def test_there_is_always_a_prefix_that_keeps_the_number_below_1000(value: float) -> None:
    number = float(humanize(value, "s").split()[0])
    assert 0.5 <= number < 1000


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.9999, "s", "1.00 s"),
        (0.9994, "s", "999 ms"),
        (0.99949, "s", "999 ms"),
        (999_500, "B", "1.00 MB"),
        (999_499, "B", "999 kB"),
        (0.0, "J", "0 J"),
        (12.34, "1/s", "12.3/s"),
        (49276.3, "1/s", "49,276/s"),
        (0.0123, "J/inference", "12.3 mJ"),
        (float("nan"), "s", "nan s"),
        (3.0, "", "3.00"),
    ],
)
def test_numbers_at_the_edges_of_a_prefix(value: float, unit: str, text: str) -> None:
    assert humanize(value, unit) == text


@given(st.floats(1e-6, 1e12), st.booleans())
def test_three_digits_are_within_half_a_percent_and_never_in_exponent_form(value: float, is_negative: bool) -> None:
    value = -value if is_negative else value
    text = three_digits(value)
    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=5.01e-3)


def test_zero_is_zero() -> None:
    assert three_digits(0) == three_digits(-0.0) == "0"


@given(st.floats(1e-6, 999))
def test_below_a_thousand_there_are_exactly_three_digits(value: float) -> None:
    digits = three_digits(value).replace(".", "").lstrip("0")
    assert len(digits) == 3
