"""A gate: every candidate by every goal, and how its outcome reads in a pull request and on a CI server."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import decided
import pytest
import record_builder as build
from markdown_it import MarkdownIt

from compressbench.records.record import Record
from compressbench.report.catalog import Catalog
from compressbench.report.gate import Gate, gate
from compressbench.report.gate_words import MOST_SHOWN, to_json_text, to_markdown, verdict_text
from compressbench.report.goal_words import units_of
from compressbench.report.goals import Goal
from compressbench.report.junit import to_junit
from compressbench.report.policy import Policy, names_needed

DATA = Path(__file__).parent.parent / "data" / "policies"
HOSTILE = "a|b`<img src=x>*]]>&\"'\n# x\x00\x07\x1b[31m\u202e\ud800\ufffe=1+1"
POLICY = Policy(
    (
        Goal("accuracy", "max-degradation", 0.01),
        Goal("latency_p50_s", "percent-min-improvement", 20.0),
        Goal("disk_bytes", "threshold", 80e6),
    ),
    require=("peak_memory_bytes",),
)


def records() -> list[Record]:
    """One that passes, one that misses its goals, one undecided, and one that is not what it claims to be."""
    halved = build.interleaved(0.010, 0.005)
    return decided.run(
        decided.candidate("good", lost=5, won=5, disk_bytes=45e6, measurement=halved),
        decided.candidate("bad", lost=300, won=10, disk_bytes=90e6, measurement=halved),
        decided.candidate("unsure", lost=150, won=130, disk_bytes=45e6, measurement=halved),
        decided.candidate("liar", disk_bytes=45e6, measurement=halved, audit=decided.false_claim()),
        measurement=build.interleaved(0.010, 0.010),
    )


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314 -- we wrote it


def gated(folder: Path, *found: Record, policy: Policy = POLICY) -> tuple[Gate, dict[str, str], Catalog]:
    catalog = decided.catalog(folder, *found)
    contenders = catalog.contenders(names_needed(policy))
    return gate(catalog, contenders, policy), units_of(catalog, contenders), catalog


@pytest.mark.parametrize(
    ("names", "outcome", "code"),
    [
        (("good",), "passed", 0),
        (("good", "unsure"), "inconclusive", 2),
        (("good", "unsure", "bad"), "failed", 1),
        (("liar",), "failed", 1),
        (("unsure",), "inconclusive", 2),
    ],
)
def test_the_worst_decides(names: tuple[str, ...], outcome: str, code: int, tmp_path: Path) -> None:
    found, _, _ = gated(tmp_path, *records(), policy=POLICY._replace(candidates=names))
    assert (found.outcome, found.exit_code) == (outcome, code)
    assert [each.contender.candidate for each in found.judged] == list(
        names if names[-1] != "bad" else ("good", "bad", "unsure")
    )


def test_nothing_to_judge_is_inconclusive(tmp_path: Path) -> None:
    only, _, _ = gated(tmp_path / "a", *decided.run())
    assert (only.outcome, verdict_text(only)) == ("inconclusive", "inconclusive: there is no candidate to judge")
    no_goal, _, _ = gated(tmp_path / "b", *records()[:2], policy=Policy())
    assert (no_goal.outcome, verdict_text(no_goal)) == ("inconclusive", "inconclusive: the policy has no goal")


def test_a_required_number_that_is_missing_is_no_failure_and_no_pass(tmp_path: Path) -> None:
    policy = Policy((Goal("disk_bytes", "threshold", 80e6),), require=("ttft_p50_s",))
    found, units, _ = gated(tmp_path, *records(), policy=policy._replace(candidates=("good",)))
    assert (found.outcome, found.exit_code) == ("missing", 4)
    assert "a required measurement is missing" in verdict_text(found)
    suite = parsed(to_junit(found, units))[0]
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    # what is missed for certain is said before what is missing
    worse, _, _ = gated(tmp_path / "b", *records(), policy=policy._replace(candidates=("bad",)))
    assert worse.exit_code == 1


def test_every_row_is_judged_against_its_own_baseline_whatever_the_others_ran_on(tmp_path: Path) -> None:
    here, there = records()[:2], records()[:2]
    moved = [
        each.model_copy(
            update={"environment": build.environment(cpu_model="Another"), "recipe": build.recipe(("good",), "other")}
        )
        for each in there
    ]
    found, _, _ = gated(tmp_path, *here, *moved)
    assert [each.contender.recipe for each in found.judged] == ["example", "other"]
    assert found.outcome == "passed"


def test_strata_are_judged_by_the_rule_of_the_table(tmp_path: Path) -> None:
    lossy = build.accuracy_after(300, 0).model_copy(update={"stratum": "reasoning"})
    fine = build.accuracy_after(5, 5).model_copy(update={"stratum": "reasoning"})
    policy = Policy(max_stratum_drop=0.05)
    run = decided.run(decided.candidate("fine", scores=(fine,)), decided.candidate("lossy", scores=(lossy,)))
    found, units, _ = gated(tmp_path, *run, policy=policy)
    assert [each.judgements[0].outcome for each in found.judged] == ["met", "missed"]
    assert "reasoning loss | 9.74 points" in to_markdown(found, units).replace("\\", "")
    assert gated(tmp_path / "b", *records()[:2], policy=policy)[0].outcome == "inconclusive"


def test_the_summary_for_a_pull_request_is_the_recorded_one(tmp_path: Path) -> None:
    found, units, _ = gated(tmp_path, *records())
    assert to_markdown(found, units) == (DATA / "gate.md").read_text()


def test_the_junit_file_is_the_recorded_one(tmp_path: Path) -> None:
    found, units, _ = gated(tmp_path, *records())
    assert to_junit(found, units) == (DATA / "gate.xml").read_text()


def test_junit_counts_what_it_holds(tmp_path: Path) -> None:
    found, units, _ = gated(tmp_path, *records())
    root = parsed(to_junit(found, units))
    assert root.tag == "testsuites"
    assert {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "13", "failures": "3", "errors": "0", "skipped": "1",
    }  # fmt: skip
    for suite in root:
        cases = suite.findall("testcase")
        assert suite.get("tests") == str(len(cases))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(name) == str(len(suite.findall(f"testcase/{tag}")))
        assert [child.tag for child in suite] == ["properties", *["testcase"] * len(cases)]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    # what JSON can hold; a lone surrogate it can't
    name = HOSTILE.replace("\ud800", "")
    run = decided.run(decided.candidate(name, lost=300, won=0), build.failed("b", name))
    found, units, _ = gated(tmp_path, *run)
    root = parsed(to_junit(found, units))
    assert "<img src=x>" in str(root[0].get("name"))
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(to_markdown(found, units))
    assert "<img" not in html
    assert html.count("<h2>") == 1
    assert "<h1>" not in html
    assert all(line.isprintable() for line in to_markdown(found, units).splitlines())


def test_a_surrogate_is_no_xml_either(tmp_path: Path) -> None:
    found, units, _ = gated(tmp_path, *records())
    judged = found.judged[0]
    odd = judged._replace(contender=judged.contender._replace(candidate=HOSTILE, faults=(HOSTILE,), model=HOSTILE))
    parsed(to_junit(found._replace(judged=(odd,)), units).encode().decode())


def test_a_long_summary_is_cut_and_says_so(tmp_path: Path) -> None:
    found, units, _ = gated(tmp_path, *records())
    many = found._replace(judged=found.judged * MOST_SHOWN)
    assert "and 150 more" in to_markdown(many, units)


def test_json_has_every_judgement(tmp_path: Path) -> None:
    found, units, _ = gated(tmp_path, *records())
    fields = json.loads(to_json_text(found, units))
    assert (fields["outcome"], fields["exit_code"]) == ("failed", 1)
    assert [each["outcome"] for each in fields["candidates"]] == ["passed", "failed", "inconclusive", "failed"]
    assert fields["candidates"][3]["faults"] == ["false claim: 8 bits are stored per weight where 4 are claimed"]
    first = fields["candidates"][1]["judgements"][0]
    assert (first["figure"], first["type"], first["outcome"]) == ("accuracy", "max-degradation", "missed")
    assert first["shortfall"] == pytest.approx(first["high"] - 0.01)
