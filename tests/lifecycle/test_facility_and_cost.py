"""What a building adds, litres of water, and money."""

from __future__ import annotations

import pytest

from compressbench.core.errors import InputError, UnknownNameError
from compressbench.lifecycle.amounts import exact
from compressbench.lifecycle.cost import cost_of, prices
from compressbench.lifecycle.facility import SITES, facility, facility_kwh, water_litres

JOULES, SECONDS = exact(7.2e6, "J", "measured", "a meter"), exact(1800.0, "s", "measured", "a clock")


def test_a_kilowatt_hour_is_3_6_million_joules() -> None:
    assert facility_kwh(JOULES, exact(1.0, "", "given", "--pue")).value == pytest.approx(2.0)


def test_an_unknown_data_centre_is_assumed_and_a_laboratory_has_one() -> None:
    unknown, lab = facility().pue, facility("lab").pue
    assert (unknown.value, unknown.kind) == (1.56, "assumed")
    assert (lab.value, lab.low, lab.high) == (1.0, 1.0, 1.0)
    assert facility("lab", pue=1.2).pue.kind == "given"


def test_named_sites_have_their_year_and_address() -> None:
    for name in ("aws", "microsoft", "google", "meta"):
        assert "https://" in SITES[name].pue.source
        assert SITES[name].pue.year.isdigit()
    with pytest.raises(UnknownNameError, match="google"):
        facility("gogle")
    with pytest.raises(InputError, match="--pue"):
        facility(pue=0.9)


def test_water_is_of_the_site_and_of_the_grid_that_the_building_draws_from() -> None:
    place = facility(pue=1.5, wue_site=0.2, wue_grid=3.0)
    assert water_litres(JOULES, place).value == pytest.approx(2 * (0.2 + 1.5 * 3.0))


def test_water_without_a_figure_is_not_accounted_and_never_zero() -> None:
    for place, missing in ((facility(), "--wue-site"), (facility("aws"), "--wue-grid")):
        found = water_litres(JOULES, place)
        assert found.value is None
        assert found.reason == f"not accounted: {missing} is not given"


def test_cost_is_time_and_electricity_at_the_users_prices() -> None:
    assert cost_of(JOULES, SECONDS, prices(3.0, None, "EUR")).value == pytest.approx(1.5)
    assert cost_of(JOULES, SECONDS, prices(None, 0.4, "EUR")).value == pytest.approx(0.8)
    both = cost_of(JOULES, SECONDS, prices(3.0, 0.4, "EUR"))
    assert both.value == pytest.approx(2.3)
    assert both.unit == "EUR"
    assert "assumed" not in both.kind


def test_without_prices_there_is_no_cost() -> None:
    found = cost_of(JOULES, SECONDS, prices(None, None, "EUR"))
    assert found.value is None
    assert "--price-per-hour" in found.reason


def test_a_given_utilisation_and_pue_go_into_money() -> None:
    at = prices(3.0, 0.4, "EUR")._replace(
        utilisation=exact(0.5, "", "given", "--utilisation"), pue=exact(1.5, "", "given", "--pue")
    )
    assert cost_of(JOULES, SECONDS, at).value == pytest.approx(3.0 + 1.2)
