"""`compressbench doctor`: the whole verb, on whatever machine the tests run on."""

from __future__ import annotations

import json

import pytest

from compressbench.cli.main import call
from compressbench.core import registry


def test_doctor_says_of_every_name_whether_it_is_usable_and_of_a_meter_with_options_what_it_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for room in ("meters", "runtimes", "methods", "tasks"):
        names = [each["name"] for each in found if each["room"] == room]
        assert names == list(getattr(registry, room).names())
    log = next(each for each in found if each["name"] == "energy-csv")
    assert not log["is_usable"]
    assert log["detail"] == "needs path, boundary, source, relative_uncertainty"
    assert "recipe" in log["do"]
    assert all(each["is_usable"] or each["detail"] for each in found)


def test_doctor_prints_its_findings_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["doctor"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "needs path, boundary, source, relative_uncertainty" in said
    assert "embedded:minilm-banking77" in said
