"""`breakeven` and `fleet`: on made-up runs, on the records in results, and on names that want to be markup."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import decided
import pytest
import record_builder as build
from rich.cells import cell_len

from compressbench.cli.main import call

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "data" / "golden"
HOSTILE = "<b>x</b>|[red]\x1b[31m\u202e`=1+1"


def said(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    code = call([*map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def balances(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    code, out, err = said(capsys, "breakeven", *words, "--json")
    assert code == 0, err
    return {each["candidate"]: each for each in json.loads(out)["candidates"]}


def account(case: dict[str, Any], unit: str = "J", per: str = "inference") -> dict[str, Any]:
    return next(each for each in case["accounts"] if (each["unit"], each["per"]) == (unit, per))


def compressed(name: str, seconds: float, joules: float | None, **changed: Any) -> Any:
    record = decided.candidate(name, seconds, **changed)
    values = {"compress_seconds": 100.0} | ({} if joules is None else {"compress_energy_j": joules})
    more = [
        each.model_copy(update={"boundary": "cpu", "window_s": 100.0, "tick_s": 0.02})
        for each in build.readings(**values)
        if each.name in values
    ]
    return record.model_copy(update={"readings": (*record.readings, *more)})


def test_what_one_run_took_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast, slow = compressed("fast", 0.005, 400.0), compressed("slow", 0.020, 500.0)
    folder = decided.stored(tmp_path, *decided.run(fast, slow, build.failed("broken")))
    found = balances(capsys, folder, "--requests-per-day", 1000)
    energy, time = account(found["fast"]), account(found["fast"], "s")
    # compressing 100 s and 400 J, evaluating 12.5 s at 4 W
    assert time["cost_alone"]["value"]["value"] == pytest.approx(112.5)
    assert energy["cost_alone"]["value"]["value"] == pytest.approx(450, rel=0.01)
    # 10 ms at 4 W, half of it
    assert energy["saving"]["value"]["value"] == pytest.approx(0.02, rel=0.02)
    number, low, high = energy["alone"]["requests"].values()
    assert low < number < high
    assert number == pytest.approx(energy["cost_alone"]["value"]["value"] / energy["saving"]["value"]["value"])
    assert energy["break_even"]["requests"]["value"] > 2 * number, "the search is counted"
    assert energy["payback_days"]["value"] == pytest.approx(energy["break_even"]["requests"]["value"] / 1000)
    assert energy["cost"]["kind"] == "estimated"
    assert any("broken" in line for line in energy["cost"]["missing"]), "a failed trial is named"
    _, out, _ = said(capsys, "breakeven", folder)
    assert "partial" in out
    assert "or more" in out
    assert account(found["slow"])["break_even"]["outcome"] == "never"
    assert account(found["broken"])["break_even"]["outcome"] == "undetermined"
    assert "CUDA ran out of memory" in found["broken"]["fault"]


def test_extra_costs_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = decided.stored(tmp_path, *decided.run(compressed("fast", 0.005, 400.0)))
    plain = account(balances(capsys, folder, "--no-count-search")["fast"])
    more = account(balances(capsys, folder, "--no-count-search", "--extra-joules", 1000)["fast"])
    assert more["cost"]["value"]["value"] == pytest.approx(plain["cost"]["value"]["value"] + 1000)
    assert more["kind"] == "assumed"
    assert plain["break_even"] == plain["alone"]
    grams = balances(capsys, folder, "--grid-g-per-kwh", 300, "--price-per-hour", 3)["fast"]
    assert account(grams, "g")["break_even"]["requests"] == pytest.approx(account(grams)["break_even"]["requests"])
    assert account(grams, "money")["break_even"]["requests"] == pytest.approx(
        account(grams, "s")["break_even"]["requests"]
    )


def test_unsteady_and_degraded_ones_are_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shaky = compressed("shaky", 0.005, 400.0)
    warm = {
        arm: each.model_copy(update={"steady_state": "not-reached"}) for arm, each in shaky.measurement.warm_up.items()
    }
    shaky = shaky.model_copy(update={"measurement": shaky.measurement.model_copy(update={"warm_up": warm})})
    worse = compressed("worse", 0.009, 400.0, lost=1600, won=0)
    folder = decided.stored(tmp_path, *decided.run(shaky, worse))
    found = balances(capsys, folder)
    assert account(found["shaky"])["saving"]["value"] is None
    assert "steady" in found["shaky"]["fault"]
    assert found["worse"]["is_degraded"]
    assert account(found["worse"])["break_even"]["outcome"] == "reached"
    assert account(found["worse"], per="correct")["break_even"]["outcome"] == "never"
    code, out, _ = said(capsys, "breakeven", folder)
    assert code == 0
    assert "per correct answer" in out
    assert "undetermined (unsound)" in out


def test_golden_records_without_energy(capsys: pytest.CaptureFixture[str]) -> None:
    found = balances(capsys, GOLDEN / "missing-energy")["int8"]
    assert (account(found)["break_even"]["outcome"], account(found)["cost"]["value"]) == ("undetermined", None)
    assert "no counter can be read" in account(found)["break_even"]["reason"]
    # 1.5 s of compressing and 12.5 s of evaluating, over 4 ms
    assert account(found, "s")["cost_alone"]["value"]["value"] == pytest.approx(14.0)
    assert account(found, "s")["alone"]["requests"]["value"] == pytest.approx(14 / 0.004, rel=0.02)


def test_golden_records_that_are_worse_never_pay(capsys: pytest.CaptureFixture[str]) -> None:
    found = balances(capsys, GOLDEN / "keep-the-baseline")["worse"]
    assert {each["break_even"]["outcome"] for each in found["accounts"]} == {"never"}


def test_the_quickstart_pays(capsys: pytest.CaptureFixture[str]) -> None:
    found = balances(capsys, ROOT / "tests" / "data" / "quickstart")
    distilled, pruned = account(found["4-layers-distilled-int8"]), found["magnitude-2of4"]
    # joules per inference of the baseline less those of the candidate, from the table: 85.1 mJ x (1 - 0.408)
    assert distilled["saving"]["value"]["value"] == pytest.approx(0.0504, abs=2e-4)
    # 236.3 J read while compressing, 3.58 s of evaluating at about 8 W
    assert distilled["cost_alone"]["value"]["value"] == pytest.approx(236.3 + 3.58 * 8, rel=0.01)
    assert distilled["alone"]["requests"]["value"] == pytest.approx(5260, rel=0.01)
    assert distilled["break_even"]["requests"]["value"] > distilled["alone"]["requests"]["value"]
    assert account(pruned)["break_even"]["outcome"] == "undetermined"
    assert account(pruned, per="correct")["break_even"]["outcome"] == "never"
    assert "steady state" in found["4-layers"]["fault"]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("form", ["terminal", "md", "csv", "json"])
def test_a_name_is_text(
    width: int, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    record = compressed("fast", 0.005, 400.0).model_copy(update={"candidate": HOSTILE})
    folder = decided.stored(tmp_path, *decided.run(record))
    for words in (["breakeven"], ["fleet", "--requests-per-day", "1e6", "--lifetime-years", "3"]):
        code, out, err = said(capsys, words[0], folder, *words[1:], "--format", form)
        assert (code, err) == (0, "")
        assert "\x1b" not in out
        assert "\u202e" not in out
        if form == "terminal":
            assert max(map(cell_len, out.splitlines())) <= width
        if form == "md":
            assert "<b>" not in out
        if form == "csv":
            assert len({len(line) for line in csv.reader(io.StringIO(out))}) == 1


def test_a_fleet_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = decided.stored(tmp_path, *decided.run(compressed("fast", 0.005, 400.0)))
    words = ["--requests-per-day", 86_400 * 950, "--lifetime-years", 1, "--price-per-hour", 2, "--idle-watts", 1]
    code, out, _ = said(capsys, "fleet", folder, *words, "--json")
    found = {each["name"]: each for each in json.loads(out)["models"]}
    assert code == 0
    # 950 a second, at 100 and 200 a second each
    assert (found["baseline"]["replicas"]["value"], found["fast"]["replicas"]["value"]) == (10, 5)
    assert found["baseline"]["money"]["value"] == pytest.approx(10 * 365.25 * 24 * 2)
    assert found["fast"]["saved_joules"]["value"] > 0
    assert found["baseline"]["saved_joules"] is None


def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = decided.stored(tmp_path, *decided.run(compressed("fast", 0.005, 400.0)))
    for words in (
        ["breakeven", folder, "--lifetime-years", 3],
        ["breakeven", folder, "--requests-per-day", 0],
        ["breakeven", folder, "--extra-joules", "nan"],
        ["breakeven", folder, "--recipe", "nobody"],
        ["fleet", folder, "--requests-per-day", 1, "--lifetime-years", 1, "--utilisation", 2],
    ):
        code, out, err = said(capsys, *words)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
    assert said(capsys, "fleet", GOLDEN / "mixed-keys", "--requests-per-day", 1, "--lifetime-years", 1)[0] == 5
    alone = decided.stored(tmp_path / "alone", *decided.run())
    assert said(capsys, "breakeven", alone)[0] == 2
