"""`recommend`: the one to deploy, the baseline where nothing beats it, and the nearest miss where nothing qualifies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import decided
import pytest
import record_builder as build
from rich.cells import cell_len

from compressbench.cli.main import call
from compressbench.records.record import Record

HOSTILE = "<b>x</b>|[red]\x1b[31m\u202e`=1+1"


def said(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    code = call(["recommend", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def answered(capsys: pytest.CaptureFixture[str], *words: Any) -> dict[str, Any]:
    code, out, _ = said(capsys, *words, "--json")
    found: dict[str, Any] = json.loads(out)
    assert found["exit_code"] == code
    return found


def reasons(found: dict[str, Any]) -> dict[str, str]:
    return {each["candidate"]: "; ".join(each["reasons"]) for each in found["rejected"]}


def quick() -> list[Record]:
    return decided.run(
        decided.candidate("fast", 0.005, lost=10, won=8, disk_bytes=60e6),
        decided.candidate("faster-and-worse", 0.004, lost=300, won=10),
        decided.candidate("slow", 0.020, disk_bytes=30e6),
        build.failed("broken"),
    )


def test_the_fastest_that_is_not_degraded_is_deployed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answered(capsys, decided.stored(tmp_path, *quick()))
    assert (found["verdict"], found["deploy"]["candidate"], found["runner_up"]["candidate"]) == (
        "DEPLOY",
        "fast",
        "baseline",
    )
    assert found["deploy"]["key"] == "key-of-fast"
    assert found["deploy"]["figures"]["latency_p50_s"]["against_baseline"]["verdict"] == "faster"
    told = reasons(found)
    assert "accuracy loss 9.42 points" in told["faster-and-worse"]
    assert "not shown to be better than the baseline on latency p50" in told["slow"]
    assert "CUDA ran out of memory" in told["broken"]
    assert [each["candidate"] for each in found["rejected"] if each["qualifies"]] == ["slow"]
    assert "may have lost up to" in found["notes"][0]["reasons"][0], "nobody set a limit to the loss"


def test_the_margin_of_the_recipe_is_the_goal_where_nothing_else_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    margin = {"margin": 0.005}
    scores = {
        name: build.accuracy_after(lost, won).model_copy(update=margin)
        for name, lost, won in (("sure", 10, 8), ("unsure", 100, 90))
    }
    folder = decided.stored(
        tmp_path,
        *decided.run(
            decided.candidate("sure", 0.006, scores=(scores["sure"],)),
            decided.candidate("unsure", 0.004, scores=(scores["unsure"],)),
        ),
    )
    found = answered(capsys, folder)
    assert found["deploy"]["candidate"] == "sure"
    assert "not shown to be within the declared margin" in reasons(found)["unsure"]
    assert answered(capsys, folder, "--max-accuracy-drop", "0.02")["deploy"]["candidate"] == "unsure"


@pytest.mark.parametrize(("objective", "best"), [("size", "slow"), ("energy", "fast"), ("throughput", "fast")])
def test_the_objective_decides(objective: str, best: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answered(capsys, decided.stored(tmp_path, *quick()), "--objective", objective)["deploy"]["candidate"] == best


def test_offline_the_objective_is_throughput(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workload = {"scenario": "offline", "batch_size": 1, "sequence_length": 32}
    records = [each.model_copy(update={"workload": workload}) for each in quick()]
    assert answered(capsys, decided.stored(tmp_path, *records))["objective"] == "throughput_per_s"


def test_the_baseline_is_kept_where_all_are_slower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = decided.stored(
        tmp_path, *decided.run(decided.candidate("slow", 0.020), decided.candidate("slower", 0.030))
    )
    found = answered(capsys, folder)
    assert (found["verdict"], found["deploy"]["role"], found["exit_code"]) == ("KEEP", "baseline", 0)
    assert found["runner_up"]["candidate"] == "slow"
    out = said(capsys, folder)[1]
    assert out.startswith("KEEP  baseline")


def test_the_baseline_is_kept_where_none_can_be_told_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = decided.candidate("same", decided.BASELINE_S)
    found = answered(capsys, decided.stored(tmp_path, *decided.run(same)))
    assert found["deploy"]["role"] == "baseline"
    assert [each["candidate"] for each in found["unproven"]] == ["same"]


def test_a_baseline_that_misses_a_goal_leaves_the_field_to_a_slower_candidate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answered(capsys, decided.stored(tmp_path, *quick()), "--max-size-gb", "0.04")
    assert found["deploy"]["candidate"] == "slow"
    assert found["baseline_qualifies"] is False
    assert "at most 40.0 MB: missed by up to 50.0 MB" in reasons(found)["baseline"]


def test_overlapping_intervals_tie_and_the_smaller_loss_is_deployed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    near = build.interleaved(build.noisy(0.010, 0.3, seed=1), build.noisy(0.00505, 0.3, seed=3), calls=5)
    other = build.interleaved(build.noisy(0.010, 0.3, seed=1), build.noisy(0.00500, 0.3, seed=2), calls=5)
    records = decided.run(
        decided.candidate("loses-more", lost=30, won=25, measurement=other),
        decided.candidate("loses-less", lost=11, won=10, measurement=near),
    )
    folder = decided.stored(tmp_path, *records)
    found = answered(capsys, folder)
    assert found["deploy"]["candidate"] == "loses-less"
    assert [each["candidate"] for each in found["tied"]] == ["loses-more"]
    assert found["runner_up"]["candidate"] == "loses-more"
    out = " ".join(said(capsys, folder)[1].split())
    assert "loses-less and loses-more can't be told apart on latency p50; loses-less loses the least accuracy" in out


def test_impossible_goals_leave_the_nearest_miss_with_its_distance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = decided.run(
        decided.candidate("a", 0.005, disk_bytes=60e6), decided.candidate("b", 0.005, disk_bytes=50e6)
    )
    folder = decided.stored(tmp_path, *records)
    code, out, err = said(capsys, folder, "--max-size-gb", "0.04")
    assert code == 6
    assert "none of 2 candidates meets every goal" in err
    alone = decided.stored(tmp_path / "alone", *records[:2])
    assert "the only candidate does not meet every goal" in said(capsys, alone, "--max-size-gb", "0.04")[2]
    assert out.startswith("NONE QUALIFIES\n")
    assert "NEAREST MISS b\n  misses size on disk by up to 10.0 MB (25.0 % of the limit)" in out
    assert "and the baseline doesn't either: size on disk 90.0 MB, at most 40.0 MB" in " ".join(out.split())
    found = answered(capsys, folder, "--max-size-gb", "0.04")
    assert found["deploy"] is None
    assert found["nearest_miss"]["judgements"][0]["shortfall"] == pytest.approx(10e6)
    assert found["nearest_miss"]["judgements"][0]["fraction"] == pytest.approx(0.25)
    # with an allowance for b the answer is there
    assert answered(capsys, folder, "--max-size-gb", "0.05")["deploy"]["candidate"] == "b"


def test_an_undecided_goal_is_nearer_than_a_missed_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = decided.run(
        decided.candidate("missed", lost=60, won=0), decided.candidate("undecided", lost=200, won=190)
    )
    found = answered(capsys, decided.stored(tmp_path, *records), "--max-accuracy-drop", "0.012")
    outcomes = {each["candidate"]: [one["outcome"] for one in each["judgements"]] for each in found["rejected"]}
    assert outcomes == {"undecided": ["undecided"], "missed": ["missed"]}
    assert found["nearest_miss"]["candidate"] == "undecided"


def test_the_baseline_that_does_is_named_where_no_candidate_qualifies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = decided.stored(tmp_path, *decided.run(decided.candidate("bad", 0.005, lost=300, won=1)))
    code, out, _ = said(capsys, folder)
    assert code == 6
    assert "No candidate meets every goal; the baseline does: keep it." in out


def test_rows_of_other_conditions_are_not_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = quick()
    other = {"environment": build.environment(cpu_model="Another CPU"), "recipe": build.recipe(("fast",), "other")}
    there = [each.model_copy(update=other) for each in here]
    folder = decided.stored(tmp_path, *here, *there)
    code, _, err = said(capsys, folder)
    assert code == 5
    assert "hardware" in err
    assert "Another CPU" in err
    assert "--key" in err
    assert said(capsys, folder, "--recipe", "other")[0] == 0
    found = answered(capsys, folder, "--force")
    assert found["watermark"].startswith("NOT COMPARABLE, forced: these rows differ in hardware")
    for form in ("terminal", "md"):
        assert "NOT COMPARABLE" in said(capsys, folder, "--force", "--format", form)[1]


def test_what_can_not_be_believed_is_never_deployed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = build.accuracy_after(0, 5).model_copy(update={"implausible": ("all of 3080 predictions are '0'",)})
    unsteady = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.001, seed=2))
    warm = {arm: each.model_copy(update={"steady_state": "not-reached"}) for arm, each in unsteady.warm_up.items()}
    records = decided.run(
        decided.candidate("lies", 0.001, audit=decided.false_claim()),
        decided.candidate("implausible", 0.001, scores=(odd,)),
        decided.candidate("unsteady", measurement=unsteady.model_copy(update={"warm_up": warm})),
        decided.candidate("honest", 0.006),
    )
    found = answered(capsys, decided.stored(tmp_path, *records))
    assert found["deploy"]["candidate"] == "honest"
    told = reasons(found)
    assert told["lies"] == "false claim: 8 bits are stored per weight where 4 are claimed"
    assert told["implausible"].startswith("implausible: ")
    assert "all of 3080 predictions" in told["implausible"]
    assert "did not reach a steady state" in told["unsteady"]


def test_an_unsteady_row_may_be_the_smallest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shaky = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.010, seed=2))
    warm = {arm: each.model_copy(update={"steady_state": "not-reached"}) for arm, each in shaky.warm_up.items()}
    records = decided.run(
        decided.candidate("small", measurement=shaky.model_copy(update={"warm_up": warm}), disk_bytes=20e6)
    )
    found = answered(capsys, decided.stored(tmp_path, *records), "--objective", "size")
    assert found["deploy"]["candidate"] == "small"


@pytest.mark.parametrize("others", [[], [build.failed("broken")]])
def test_without_a_candidate_that_works_none_qualifies(
    others: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, decided.stored(tmp_path, *decided.run(*others)))
    assert code == 6
    assert ("the only candidate does not meet" if others else "none of 0 candidates meets") in err
    assert "the baseline does: keep it." in out


def test_an_objective_that_nobody_measured_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = decided.stored(tmp_path, *quick())
    code, _, err = said(capsys, folder, "--objective", "ttft_p50_s")
    assert code == 4
    assert "no candidate has ttft_p50_s" in err


def test_estimated_energy_does_not_stand_where_measured_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("objective: energy\nenergy-kind: measured\n")
    code, out, _ = said(capsys, decided.stored(tmp_path / "records", *quick()), "--policy", policy)
    assert code == 6
    assert "it is estimated, and measured energy is asked for" in " ".join(out.split())


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--max-latency-p95-s", "0.006"], 0),
        (["--max-latency-p95-s", "0.001"], 6),
        (["--max-memory-gb", "0.1"], 0),
        (["--max-memory-gb", "0.01"], 6),
        (["--max-energy-j", "0.03"], 0),
        (["--max-energy-j", "0.01"], 6),
        (["--min-throughput", "150"], 0),
        (["--min-throughput", "900"], 6),
        (["--max-accuracy-drop", "0.01"], 0),
        (["--max-accuracy-drop", "0.0001"], 6),
        (["--goal", "accuracy:mlperf=99"], 0),
        (["--goal", "energy:percent-min-improvement=40"], 0),
        (["--goal", "energy:percent-min-improvement=90"], 6),
        (["--max-stratum-drop", "0.05"], 6),
        (["--goal", "accuracy:mlperf=98"], 2),
        (["--goal", "accuracy"], 2),
        (["--goal", "accuracy:threshold=x"], 2),
        (["--goal", "acuracy:threshold=1"], 2),
        (["--objective", "latncy"], 2),
        (["--recipe", "nothing"], 2),
        (["--policy", "/nowhere.yaml"], 2),
    ],
)
def test_flags_and_exit_codes(flags: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = decided.stored(tmp_path, *decided.run(decided.candidate("fast", 0.005, lost=10, won=8)))
    assert said(capsys, folder, *flags)[0] == code


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_name_steers_it(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    records = decided.run(
        decided.candidate(HOSTILE, 0.005), decided.candidate("x" * 60, 0.02), build.failed("y", HOSTILE)
    )
    folder = decided.stored(
        tmp_path, *(each.model_copy(update={"recipe": build.recipe(("a",), "r")}) for each in records)
    )
    _, out, _ = said(capsys, folder)
    assert max(cell_len(line) for line in out.splitlines()) <= width
    assert out.replace("\n", "").isprintable()
    assert "<b>x</b>" in out
    markdown = said(capsys, folder, "--format", "md")[1]
    assert "<b>" not in markdown
    assert "\\<b\\>x" in markdown


def test_a_long_list_of_rejections_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = build.interleaved(0.010, 0.005, rounds=2, calls=2)
    many = [decided.candidate(f"c{at:02}", lost=100 + at, won=0, measurement=measured) for at in range(30)]
    found = answered(capsys, decided.stored(tmp_path, *decided.run(*many)), "--max-accuracy-drop", "0.01")
    assert (len(found["rejected"]), found["num_rejected"]) == (20, 30)
    assert found["unlisted"] == ["10 more: accuracy missed"]
    assert [each["candidate"] for each in found["rejected"]] == [f"c{at:02}" for at in range(20)], "the nearest first"


def test_a_doubt_about_perplexity_says_how_much_it_may_have_risen_and_how_to_limit_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = build.counts(0, 0, 100).model_copy(update={"mean_difference": 0.02, "sd_difference": 0.5})
    risen = decided.candidate("int8", 0.006, scores=(build.perplexity(20.02, paired=worse),))
    run = decided.run(risen, scores=(build.perplexity(20.0),))
    _, out, _ = said(capsys, decided.stored(tmp_path, *run))
    told = " ".join(out.split())
    assert "perplexity may have risen by up to" in told
    assert "Set a limit (--goal perplexity:percent-max-degradation=X)." in told
