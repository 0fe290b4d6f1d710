"""Rows into a board: groups, ranks, badges, answers, and names that last."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import record_builder as build

from compressbench.cli.main import call
from compressbench.records.record import Record
from compressbench.records.store import Located, RecordStore
from compressbench.report.catalog import catalog_of
from compressbench.report.heading import conditions
from compressbench.report.leaderboard import latex, text_forms
from compressbench.report.leaderboard.badges import kind_of
from compressbench.report.leaderboard.board import Board, Group, Place
from compressbench.report.leaderboard.board_build import board_of
from compressbench.report.leaderboard.cell_text import cell_text, quantity_title

HOSTILE = (
    "<script>alert(1)</script>",
    '=HYPERLINK("http://example.com","x")',
    "+1+1|x",
    "\\input{/etc/passwd}$x^2_3$ 100% #1 & ~ `x` \"y\" {z}",
    "a\nb\r\tc\x1b[31m‮d",
    "--- ?` [x] \\\\ %",
    "ends\\",
)  # fmt: skip


def board(records: Sequence[Record], title: str = "Title") -> Board:
    return board_of(catalog_of([Located(Path(f"{at}.json"), record) for at, record in enumerate(records)]), title)


def one_group(records: Sequence[Record]) -> Group:
    (group,) = board(records).groups
    return group


def candidate(lost: int, won: int, seconds: float = 0.010, seed: int = 2, **changed: object) -> Record:
    measurement = build.measurement(build.noisy(0.010, seed=1), build.noisy(seconds, seed=seed))
    return build.record("x", **{"scores": (build.accuracy_after(lost, won),), "measurement": measurement, **changed})


def run(candidates: Mapping[str, Record], **baseline: object) -> list[Record]:
    named = {name: record.model_copy(update={"candidate": name}) for name, record in candidates.items()}
    return build.run_of(named, **baseline)


def by_name(group: Group) -> dict[str, Place]:
    return {place.contender.candidate: place for place in group.places}


def test_rows_that_can_not_be_told_apart_share_ranks_and_a_letter() -> None:
    group = one_group(run({"same": candidate(20, 18), "worse": candidate(600, 10)}))
    found = by_name(group)
    ranks = {name: place.ranks["accuracy"] for name, place in found.items()}
    assert ranks["baseline"][:2] == ranks["same"][:2] == (1, 2)
    assert ranks["worse"][:2] == (3, 3)
    assert set(ranks["baseline"].letters) & set(ranks["same"].letters)
    assert not set(ranks["worse"].letters) & set(ranks["same"].letters)
    assert [place.contender.candidate for place in group.places][-1] == "worse"


def test_rows_of_other_conditions_stand_in_another_group() -> None:
    here = run({"int8": candidate(5, 5)})
    there = [
        record.model_copy(
            update={"environment": build.environment(cpu_model="Other CPU"), "run_id": "20271122T074513.926665Z"}
        )
        for record in run({"int8": candidate(5, 5)})
    ]
    groups = board([*here, *there]).groups
    assert len(groups) == 2
    assert "Other CPU" in groups[0].subtitle, "the newest run leads"
    assert len({place.id for group in groups for place in group.places}) == 4


def test_the_subtitle_is_the_heading_of_the_table_without_the_names() -> None:
    tried = {
        "scenario": "offline",
        "batch_size": 32,
        "batch_sizes": [1, 8],
        "sequence_length": 32,
        "latency_limit_s": 0.05,
    }
    one = build.environment(num_threads=1)
    records = run({"x": candidate(5, 5, workload=tried, environment=one)}, workload=tried, environment=one)
    asked = "offline, best batch of 1, 8, 32 tokens within 50.0 ms"
    assert one_group(records).subtitle == f"minilm-banking77 · {asked} · Example CPU, 1 thread"
    assert conditions(records[0]).endswith(f"Example CPU, 1 thread · {asked}")


def test_the_answer_is_the_fastest_that_lost_nothing() -> None:
    rows = {
        "fast-and-worse": candidate(600, 10, 0.002),
        "fast": candidate(20, 18, 0.004),
        "slow": candidate(20, 18, 0.02),
    }
    group = one_group(run(rows))
    assert by_name(group)["fast"].id == group.answer_id
    assert "faster" in group.answer
    assert (group.answer_label, group.answer_rule[:20]) == ("What to deploy", "The best latency p50")
    assert group.answer_text.startswith("fast: ")


def test_the_baseline_is_kept_where_nothing_is_faster() -> None:
    group = one_group(run({"slow": candidate(20, 18, 0.02)}))
    assert by_name(group)["baseline"].id == group.answer_id
    assert group.answer_label == "Keep the baseline"


def test_no_answer_where_every_candidate_lost() -> None:
    group = one_group(run({"worse": candidate(600, 10, 0.002)}))
    assert group.answer_id == ""
    assert group.answer.startswith("No candidate")
    assert one_group([build.record()]).answer == "No candidate was measured: there is only the baseline."


def test_each_of_several_models_has_an_answer_of_its_own() -> None:
    tiny = build.recipe(("fast",), name="tiny", model={"id": "embedded:tiny-banking77"})
    of_tiny = [
        build.record(recipe=tiny, scores=(build.accuracy(0.5),), measurement=build.measurement(0.001, 0.001)),
        candidate(60, 20, 0.002, recipe=tiny, scores=(build.accuracy(0.49, paired=build.counts(60, 20, 3080)),)),
    ]
    group = one_group([*run({"fast": candidate(20, 18, 0.004)}), *of_tiny])
    assert (group.answer_id, group.answer_name, group.answer_rule) == ("", "", "")
    assert group.answer_label == "What to deploy of each model"
    assert group.answer.startswith("example: fast; tiny: no candidate qualifies. Which of the 2 models is good enough")
    assert group.answer.endswith("--goal accuracy:threshold=LIMIT.")


def test_of_several_recipes_of_one_model_the_answer_says_which() -> None:
    second = build.recipe(("fast",), name="second")
    records = run({"fast": candidate(20, 18, 0.004)})
    records += [build.record(recipe=second), candidate(20, 18, 0.002, recipe=second)]
    group = one_group(records)
    assert group.answer_name == "second: x"
    assert group.answer_text.startswith("second: x: ")


def test_the_verb_chooses_among_models_only_by_their_quality_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = build.recipe(("fast",), name="tiny", model={"id": "embedded:tiny-banking77"})
    store = RecordStore(tmp_path)
    for each in [*run({"fast": candidate(20, 18, 0.004)}), build.record(recipe=tiny), candidate(5, 5, recipe=tiny)]:
        store.append(each)
    assert call(["recommend", str(tmp_path)]) == 5
    assert "4 rows are of 2 models" in capsys.readouterr().err
    assert call(["recommend", str(tmp_path), "--recipe", "example"]) == 0
    for asked in (["--goal", "accuracy:threshold=0.8"], ["--objective", "accuracy"], ["--force"]):
        assert call(["recommend", str(tmp_path), *asked]) in (0, 6)
        assert "of 2 models, each" in capsys.readouterr().out or asked != ["--force"]


def test_what_no_recipe_asked_for_has_neither_column_nor_plot() -> None:
    said = build.recipe(("x", "broken"), meters=[{"use": "latency"}, {"use": "size"}])
    measured = build.interleaved(0.01, 0.01, energy_w=None)
    sizes = tuple(each for each in build.readings() if each.name != "peak_memory_bytes")
    records = [build.record(name, recipe=said, measurement=measured, readings=sizes) for name in ("baseline", "x")]
    group = one_group([*records, build.failed("broken", recipe=said)])
    assert group.costs == group.plots == ("latency_p50_s", "disk_bytes")
    everything = one_group(run({"x": candidate(5, 5)}))
    assert everything.plots == ("latency_p50_s", "energy_j_per_inference", "peak_memory_bytes", "disk_bytes")


def test_a_cell_shows_the_baseline_beside_it_and_a_note_over_what_it_ranges() -> None:
    late = candidate(5, 5, measurement=build.interleaved(0.015, 0.010))
    early, first = candidate(5, 5, measurement=build.interleaved(0.010, 0.009)), build.interleaved(0.010, 0.010)
    group = one_group(run({"x": early, "late": late}, measurement=first))
    found = by_name(group)
    assert found["x"].texts["latency_p50_s"].value == "9.00 ms"
    assert found["late"].texts["latency_p50_s"].value == "15.0 → 10.0 ms"
    assert found["late"].texts["energy_j_per_inference"].value == "60.0 → 40.0 mJ (est.)"
    (note,) = group.notes
    assert "latency p50 10.0 to 15.0 ms, energy per inference 40.0 to 60.0 mJ. Each ratio" in note
    alone = board(run({"late": late}, measurement=first))
    assert alone.groups[0].notes[0] in text_forms.to_markdown(alone).replace("\\", "")
    assert one_group(run({"x": candidate(5, 5)})).notes == ()
    assert r"15.0 $\rightarrow$ 10.0 ms" in latex.to_latex(alone)


def test_the_group_of_the_most_ranked_rows_is_shown_first() -> None:
    few = [
        each.model_copy(
            update={"environment": build.environment(cpu_model="Other"), "run_id": "20271122T074513.926665Z"}
        )
        for each in run({"x": candidate(5, 5)})
    ]
    found = board([*run({"x": candidate(5, 5), "y": candidate(6, 5)}), *few])
    assert "Other" in found.groups[0].subtitle
    assert found.first_shown == 1
    assert board(few).first_shown == 0


def test_what_failed_or_can_not_be_true_is_not_ranked_and_says_why() -> None:
    odd = build.accuracy(1.0).model_copy(update={"implausible": ("accuracy is 1.2",), "value": None})
    rows = {"odd": candidate(0, 0, scores=(odd,)), "broken": build.failed("broken"), "good": candidate(5, 5)}
    found = by_name(one_group(run(rows)))
    assert found["odd"].ranks == {}
    assert found["broken"].ranks == {}
    assert "implausible" in found["odd"].badges
    assert "failed" in found["broken"].badges
    assert "ran out of memory" in found["broken"].not_ranked["accuracy"]
    assert "accuracy is 1.2" in found["odd"].not_ranked["accuracy"]
    assert found["good"].ranks["accuracy"].high <= 2, "what can't be ranked takes no rank"


def test_an_unsteady_row_keeps_its_accuracy_rank_and_loses_its_times() -> None:
    shaky = build.measurement(build.noisy(0.010, seed=1), build.noisy(0.001, seed=5), steady="not-reached")
    found = by_name(one_group(run({"shaky": candidate(5, 5, measurement=shaky), "good": candidate(5, 5)})))
    assert "unsteady" in found["shaky"].badges
    assert "accuracy" in found["shaky"].ranks
    assert "steady" in found["shaky"].not_ranked["latency_p50_s"]
    assert ("accuracy", "latency_p50_s") not in found["shaky"].front
    assert ("accuracy", "disk_bytes") in found["shaky"].front


def test_estimates_are_marked() -> None:
    found = by_name(one_group(run({"int8": candidate(5, 5)})))
    assert "estimated" in found["int8"].badges
    assert "measured" not in found["int8"].badges
    assert found["int8"].texts["energy_j_per_inference"].value.endswith("(est.)")
    meter = build.measurement(build.noisy(0.010, seed=1), build.noisy(0.01, seed=2), kind="measured")
    measured = by_name(one_group(run({"int8": candidate(5, 5, measurement=meter)}, measurement=meter)))
    assert measured["int8"].badges == ("measured",)


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ("gptq", "quantization"),
        ("cast + int8-weight-only", "quantization"),
        ("wanda", "pruning"),
        ("depth-pruning + logit-distillation", "combined"),
        ("gkd", "distillation"),
        ("someone-elses", "other"),
        ("", "other"),
    ],
)
def test_the_kind_is_the_room_of_the_methods(steps: str, kind: str) -> None:
    place = by_name(one_group(run({"x": candidate(5, 5)})))["x"]
    assert kind_of(place.contender._replace(steps=steps)) == kind


def test_a_link_lasts_when_other_rows_come_and_is_plain_where_the_name_is() -> None:
    records = run({"int8": candidate(5, 5), "<b>": candidate(5, 5)})
    before = {name: place.id for name, place in by_name(one_group(records)).items()}
    more = [*records, *run({"other": candidate(9, 5, run_id="20261123T074513.926665Z")})]
    after = [place.id for group in board(more).groups for place in group.places]
    assert before["int8"] == f"example.int8.{build.RUN_ID}"
    assert re.fullmatch(r"[0-9a-f]{16}", before["<b>"])
    assert set(before.values()) <= set(after)


def test_claims_read_as_in_the_table_and_counted_numbers_have_no_interval() -> None:
    group = one_group(run({"fast": candidate(20, 18, 0.004)}))
    figures, texts = by_name(group)["fast"].contender.figures, by_name(group)["fast"].texts
    assert re.fullmatch(r"2\.\d\d× faster", texts["latency_p50_s"].claim)
    assert re.fullmatch(r"\[2\.\d\d, 2\.\d\d\]", texts["latency_p50_s"].claim_interval)
    assert re.fullmatch(r"[\d.]+–[\d.]+ ms", texts["latency_p50_s"].interval)
    assert re.fullmatch(r"[+-]\d\.\d\d (inconclusive|equivalent)", texts["accuracy"].claim)
    assert texts["disk_bytes"].interval == ""
    tones = {
        ratio: cell_text("disk_bytes", figures["disk_bytes"]._replace(verdict=ratio), {}).tone
        for ratio in ("lower", "higher", "same")
    }
    assert tones == {"lower": "good", "higher": "bad", "same": ""}
    upwards = figures["disk_bytes"]._replace(verdict="higher", direction="higher")
    assert cell_text("throughput_per_s", upwards, {}).tone == "good"


def test_a_metric_that_stands_twice_is_called_by_its_data() -> None:
    assert quantity_title("perplexity@embedded:tinyshakespeare") == "perplexity (tinyshakespeare)"
    assert quantity_title("latency_p50_s") == "latency p50"


@pytest.fixture
def hostile_board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """As if such names were ranked: what is written must be safe without that."""
    monkeypatch.setattr("compressbench.report.rows.implausible_names", lambda _: ())
    records = run(dict.fromkeys(HOSTILE, candidate(20, 18)))
    return board(records, title=HOSTILE[0])


def test_a_spreadsheet_runs_nothing(hostile_board: Board) -> None:
    rows = list(csv.reader(io.StringIO(text_forms.to_csv(hostile_board))))
    assert len(rows) == len(HOSTILE) + 2
    assert {len(row) for row in rows} == {len(rows[0])}
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "@")) or re.match(r"-\D", cell)]


def test_markdown_stays_one_table_with_names_as_text(hostile_board: Board) -> None:
    text = text_forms.to_markdown(hostile_board)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == len(HOSTILE) + 3
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {8}
    assert re.sub(r"<br>", "", text).count("<") == len(re.findall(r"\\<", text))


def test_markdown_of_very_many_rows_says_what_it_leaves_out() -> None:
    found = board(run({"int8": candidate(5, 5), "int4": candidate(9, 5)}))
    text = text_forms.to_markdown(found, most=2)
    assert "- 1 more rows are not shown here" in text
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 4


def test_json_has_every_row_and_a_missing_value_as_null() -> None:
    data = json.loads(text_forms.to_json(board(run({"broken": build.failed("broken"), "good": candidate(5, 5)}))))
    rows = {row["candidate"]: row for row in data["groups"][0]["rows"]}
    assert rows["broken"]["figures"]["accuracy"]["value"] is None
    assert "memory" in rows["broken"]["figures"]["accuracy"]["reason"]
    assert rows["good"]["ranks"]["accuracy"]["low"] == 1
    assert rows["good"]["figures"]["latency_p50_s"]["unit"] == "s"


def tokens(text: str) -> list[str]:
    """As TeX reads it: control sequences and single signs."""
    return re.findall(r"\\[A-Za-z]+|\\.|.", text, re.DOTALL)


def test_latex_has_no_special_sign_that_a_name_brought() -> None:
    known = {"textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar", "textquotedbl",
             "textasciigrave", "ldots", "times", "pm", "mu", "cdot"}  # fmt: skip
    for name in (*HOSTILE, *(chr(code) for code in range(256)), "".join(map(chr, range(32, 127)))):
        found = tokens(latex.escape(name))
        commands = {token[1:] for token in found if re.fullmatch(r"\\[A-Za-z]+", token)}
        assert commands <= known, name
        assert not set(found) & {"#", "%", "&", "^", "_", "~", "\\", "\n", "\x1b"}, name
        assert {token for token in found if re.fullmatch(r"\\[^A-Za-z]", token)} <= {
            "\\{",
            "\\}",
            "\\$",
            "\\&",
            "\\#",
            "\\%",
            "\\_",
        }
        assert found.count("{") == found.count("}")
        assert found.count("$") % 2 == 0


def test_a_latex_table_has_as_many_columns_in_every_row(hostile_board: Board) -> None:
    text = latex.to_latex(hostile_board)
    body = text.partition("\\toprule\n")[2].partition("\\bottomrule")[0]
    rows = [line for line in body.splitlines() if line != "\\midrule"]
    assert len(rows) == len(HOSTILE) + 2
    assert {tokens(row).count("&") for row in rows} == {6}
    assert all(row.endswith(" \\\\") for row in rows)
    found = tokens(text)
    assert found.count("{") == found.count("}")
    assert found.count("\\begin") == found.count("\\end") == 2


def test_the_verb_writes_a_site_or_prints_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RecordStore(tmp_path / "records")
    for record in run({"int8": candidate(20, 18)}):
        store.append(record)
    assert call(["leaderboard", str(store.folder)]) == 2
    assert "--out" in capsys.readouterr().err
    assert call(["leaderboard", str(store.folder), "--out", str(tmp_path / "site"), "--title", "My models"]) == 0
    assert "<h1>My models</h1>" in (tmp_path / "site" / "index.html").read_text()
    capsys.readouterr()
    for form, beginning in (("md", "# "), ("csv", "group,"), ("json", '{"title"'), ("latex", "% needs")):
        assert call(["leaderboard", str(store.folder), "--format", form]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(beginning)
        assert call(["leaderboard", str(store.folder), "-f", form, "-o", str(tmp_path / form)]) == 0
        assert (tmp_path / form).read_text() == printed
    assert call(["leaderboard", str(store.folder), "--format", "md", "--recipe", "exampel"]) == 2
    assert "example" in capsys.readouterr().err
