"""Grid intensities: equal to what codecarbon computes from its tables, found by many names, and never by a network."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from compressbench.core.errors import InputError, MissingDependencyError, UnknownNameError
from compressbench.lifecycle import grid
from compressbench.lifecycle.grid import grid_intensity, regions

OF_CODECARBON = """
import json, logging
logging.disable(logging.CRITICAL)
from codecarbon.core.emissions import Emissions
from codecarbon.core.units import Energy
from codecarbon.external.geography import GeoMetadata
from codecarbon.input import DataSource
emissions, kwh = Emissions(DataSource()), Energy.from_energy(kWh=1.0)
mix = DataSource().get_global_energy_mix_data()
found = {code: 1000 * emissions.get_country_emissions(kwh, GeoMetadata(code, mix[code]["country_name"]))
         for code in "DEU FRA USA GBR POL SWE NOR CHN IND ZAF".split()}
for code, region in (("USA", "california"), ("USA", "ohio")):
    found[f"{code}-{region}"] = 1000 * emissions.get_region_emissions(kwh, GeoMetadata(code, "", region=region))
print(json.dumps(found))
"""


def test_countries_and_states_have_what_codecarbon_itself_computes() -> None:
    # in a process of its own, where it may import what it likes
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", OF_CODECARBON], capture_output=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert len(theirs) == 12
    for name, grams in theirs.items():
        assert grid_intensity(name).value == pytest.approx(grams, rel=1e-9)


def test_every_source_of_a_provinces_mix_counts() -> None:
    # Ontario of 2023, in per cent: gas 8.6, nuclear 50.1, oil 0.1, biomass 1.0, solar 5.2, wind 11.7, hydro 23.4
    grams = 8.6 * 743 + 50.1 * 29 + 0.1 * 816 + 1.0 * 230 + 5.2 * 48 + 11.7 * 26 + 23.4 * 26
    assert grid_intensity("CAN-ontario").value == pytest.approx(grams / 100.1)


def test_the_tables_are_read_without_importing_codecarbon_or_touching_a_network() -> None:
    script = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('a network')\n"
        "socket.socket = socket.getaddrinfo = refuse\n"
        "from compressbench.lifecycle.grid import grid_intensity\n"
        "assert grid_intensity('DEU').value > 0\n"
        "sys.exit(repr({'codecarbon', 'pandas', 'requests', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


def test_a_region_has_its_value_year_source_and_version() -> None:
    found = grid_intensity("DEU")
    table = json.loads((_tables() / "global_energy_mix.json").read_text())["DEU"]
    assert (found.value, found.low, found.high) == (table["carbon_intensity"],) * 3
    assert (found.unit, found.year, found.kind) == ("g/kWh", str(table["year"]), "modelled")
    assert "Germany" in found.source
    assert "codecarbon 3" in found.source


def _tables() -> Path:
    found: Any = find_spec("codecarbon")
    return Path(found.submodule_search_locations[0]) / "data" / "private_infra"


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("DEU", "deu", " Germany "), "Germany"),
        (("USA-CA", "usa-california"), "California"),
        (("CN-BJ",), "Beijing"),
        (("SE1",), "Northern Sweden"),
        (("gcp:europe-west1",), "europe-west1"),
        (("CAN-british columbia",), "British Columbia"),
    ],
)
def test_a_region_is_found_by_each_of_its_names(names: tuple[str, ...], part: str) -> None:
    found = {grid_intensity(name) for name in names}
    assert len(found) == 1
    assert part in found.pop().source


def test_no_region_is_plausibly_in_kilograms() -> None:
    assert not {name: each.value for name, each in regions().items() if not 1 < (each.value or 0) < 1500}


def test_without_a_region_it_is_the_worlds_and_says_that_it_is_assumed() -> None:
    found = grid_intensity()
    assert (found.value, found.low, found.high, found.kind, found.year) == (475, 30, 715, "assumed", "2019")


def test_what_the_user_gives_comes_first_and_only_alone() -> None:
    found = grid_intensity(g_per_kwh=12.5)
    assert (found.value, found.low, found.high, found.kind) == (12.5, 12.5, 12.5, "given")
    with pytest.raises(InputError, match="give one of both"):
        grid_intensity("DEU", 12.5)


@pytest.mark.parametrize(("word", "near"), [("DUE", "'DEU'"), ("GER", "'germany'"), ("califonia", "'usa-california'")])
def test_an_unknown_region_is_an_error_with_the_nearest_names(word: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=r"--region: no such region") as caught:
        grid_intensity(word)
    assert near in str(caught.value)
    assert word in str(caught.value)


def test_without_codecarbon_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    grid._table.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match="--grid-g-per-kwh"):
        grid_intensity("DEU")
    assert grid_intensity(g_per_kwh=1.0).value == 1.0
