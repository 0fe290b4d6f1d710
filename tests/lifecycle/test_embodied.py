"""The footprint of hardware: cited figures as intervals, shares, and nothing for hardware that nobody has a figure of."""

from __future__ import annotations

import pytest

from compressbench.core.errors import InputError
from compressbench.lifecycle.amounts import exact
from compressbench.lifecycle.embodied import Hardware, held, life, rate

H100 = Hardware("1 x NVIDIA H100 80GB HBM3; Intel(R) Xeon(R) Platinum 8480C, x86_64", True, 16)
EPYC = Hardware("AMD EPYC 7763, x86_64", False, 4)


def test_a_known_gpu_is_an_interval_between_two_named_sources() -> None:
    found = held(H100).parts["gpu"]
    assert found.value == pytest.approx((164 + 575.1) / 2)
    assert (found.low, found.high) == (164.0, 575.1)
    assert "NVIDIA HGX H100" in found.source
    assert "Boavizta" in found.source
    assert found.kinds == ("modelled",)


def test_a_gpu_holds_an_eighth_of_its_server() -> None:
    found = held(H100).kg
    assert found.value == pytest.approx(369.55 + 5700 / 8)
    assert found.low == pytest.approx(164 + 3072.2 / 8)
    assert found.high == pytest.approx(575.1 + 12199.2 / 8)
    assert held(H100, share=1.0).kg.value == pytest.approx(369.55 + 5700)


def test_the_grams_of_a_gpu_second_are_those_of_the_literature() -> None:
    # over 3 years at full work 0.00926 g/s from the carbon footprint sheet and 0.01361 g/s from Boavizta, + 1/8 server
    for kg, grams in ((164.0, 0.00926), (575.1, 0.01361)):
        found = rate(exact(kg + 5700 / 8, "kg", "given", "x"), life(3, 1))
        assert found.value == pytest.approx(grams, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("NVIDIA H200", 164, 1067), ("NVIDIA A100-SXM4-40GB", 143, 321.6), ("NVIDIA A100-PCIE-40GB", 143, 321.6)],
)
def test_other_gpus_have_their_bounds(name: str, low: float, high: float) -> None:
    found = held(Hardware(f"1 x {name}; AMD EPYC, x86_64", True, 8)).parts["gpu"]
    assert (found.low, found.high) == (low, high)


def test_one_source_alone_gives_no_interval() -> None:
    found = held(Hardware("1 x NVIDIA L4; AMD EPYC, x86_64", True, 8))
    assert found.parts["gpu"].value == 123.5
    assert found.kg.value == pytest.approx(123.5 + 900 / 4)
    assert (found.kg.low, found.kg.high) == (None, None)
    assert "one source only" in found.kg.reason


@pytest.mark.parametrize(
    ("hardware", "said"),
    [
        (Hardware("1 x NVIDIA GeForce RTX 9999; AMD EPYC, x86_64", True, 8), "RTX 9999"),
        (Hardware("1 x NVIDIA A100-SXM4-80GB; AMD EPYC, x86_64", True, 8), "80GB"),
        (Hardware("1 x NVIDIA L40S; an H100 in a name, x86_64", True, 8), "L40S"),
        (Hardware("Example CPU, x86_64", False, 8), "Example CPU"),
        (Hardware("unknown GPU; AMD EPYC, x86_64", True, 8), "unknown GPU"),
    ],
)
def test_unknown_hardware_has_no_footprint_and_says_so(hardware: Hardware, said: str) -> None:
    found = held(hardware)
    assert found.kg.value is None
    assert said in found.kg.reason
    assert "--embodied-kg" in found.kg.reason


def test_a_processor_holds_the_share_of_its_servers_cores() -> None:
    found = held(EPYC)
    assert found.parts["share"].kinds == ("assumed",)
    assert (found.parts["share"].low, found.parts["share"].value, found.parts["share"].high) == (
        4 / 256,
        4 / 192,
        4 / 128,
    )
    assert found.kg.value == pytest.approx(900 * 4 / 192)
    assert held(Hardware("Intel Xeon, x86_64", False, 1000)).kg.value == 900
    assert "--share" in held(Hardware("AMD EPYC, x86_64", False, None)).kg.reason


def test_what_the_user_gives_replaces_table_and_share() -> None:
    found = held(EPYC, kg=500, share=0.5)
    assert (found.kg.value, found.kg.kind) == (250, "given")
    assert held(Hardware("Example CPU, x86_64", False, 8), kg=3).kg.value == 3


def test_longer_life_and_more_work_in_it_make_a_second_lighter() -> None:
    kg = exact(900, "kg", "given", "x")
    assert rate(kg, life(8, 0.5)).value == pytest.approx((rate(kg, life(4, 0.5)).value or 0) / 2)
    assert rate(kg, life(4, 1)).value == pytest.approx((rate(kg, life(4, 0.5)).value or 0) / 2)
    default = rate(kg, life())
    assert default.kinds == ("assumed", "given")
    assert default.low == pytest.approx(900_000 / (6 * 365 * 86400 * 0.6))
    assert default.high == pytest.approx(900_000 / (3 * 365 * 86400 * 0.3))


@pytest.mark.parametrize(("years", "utilisation"), [(0, 1), (4, 0), (4, 1.5), (float("nan"), 1)])
def test_an_impossible_life_is_an_input_error(years: float, utilisation: float) -> None:
    with pytest.raises(InputError):
        life(years, utilisation)
