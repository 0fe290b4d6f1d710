"""Tables as people read them: on a terminal, in Markdown, in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import record_builder as build
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from compressbench.core.names import one_line
from compressbench.records.record import Record
from compressbench.records.store import read_records
from compressbench.report.heading import conditions, heading
from compressbench.report.plain import to_csv, to_json, to_markdown
from compressbench.report.rows import CELL_NAMES, Cell, rows_of
from compressbench.report.terminal import print_table
from compressbench.report.verdict import Verdict
from compressbench.report.words import cell_lines, claim_lines, columns, footnotes, value_text

DATA = Path(__file__).parent.parent / "data"
RECORDS = read_records([DATA / "records-v1"])[0]
HOSTILE = "a|b`<img src=x>*_~~\\[x](http://evil.example)\n# www.evil.example &lt; $x$ \x1b[31m\u202e"


def printed(records: list[Record], width: int = 100, *, full: bool = False, colour: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None)
    print_table(rows_of(records), heading(records[-1]), full=full, console=console)
    return stream.getvalue()


def test_the_table_on_a_terminal_of_100_columns_is_the_recorded_one() -> None:
    assert printed(RECORDS) == (DATA / "records-v1.table.txt").read_text()


def test_the_table_in_markdown_is_the_recorded_one() -> None:
    assert to_markdown(rows_of(RECORDS)) == (DATA / "records-v1.table.md").read_text()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("full", [False, True])
def test_no_line_is_wider_than_the_terminal_and_no_value_is_lost(width: int, full: bool) -> None:
    text = printed(RECORDS, width, full=full)
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    for row in rows_of(RECORDS):
        for name in columns(rows_of(RECORDS), full=full):
            assert value_text(name, row.cells[name]) in text
            assert all(line in text for line in cell_lines(row, name))


def test_a_long_name_is_folded_and_not_cut() -> None:
    name = "".join(chr(ord("a") + index % 26) for index in range(128))
    text = printed([build.record(name, role="candidate")])
    assert name in "".join(line.split(" ")[0] for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 100


def test_hostile_text_does_not_steer_the_terminal() -> None:
    said = build.recipe((HOSTILE,))
    records = [build.record(recipe=said), build.failed(HOSTILE, HOSTILE, recipe=said)]
    text = printed(records)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.replace("\n", "").isprintable()


def test_good_is_green_and_bad_is_red() -> None:
    text = printed(RECORDS, colour=True)
    assert "\x1b[32m2.50x faster" in text
    assert "\x1b[31m-12.01 degraded" in text
    assert "\x1b[31mfailed" in text


def test_a_thousand_rows_are_all_there() -> None:
    text = printed(RECORDS * 200)
    assert text.count("int8-dynamic") == 200
    assert text.count("CUDA ran out of memory") == 1


def test_each_dash_has_its_reason_and_equal_reasons_stand_once() -> None:
    rows = rows_of(RECORDS)
    notes = footnotes(rows, columns(rows))
    assert "— half-the-layers: energy per inference: the instrument was unplugged" in notes
    assert "— broken: failed: CUDA ran out of memory [step.py:12]" in notes
    assert "est.: estimated, not measured; a made-up meter" in notes
    assert len(notes) == len(set(notes))


def test_many_places_of_one_reason_are_counted() -> None:
    said = build.recipe([f"c{index}" for index in range(9)])
    rows = rows_of([build.failed(f"c{index}", "broken", recipe=said) for index in range(9)])
    assert footnotes(rows, columns(rows)) == ["— c0, c1, c2, c3 and 5 more: failed: broken"]


def verdict(word: str, ratio: float, low: float, high: float) -> Verdict:
    return Verdict(verdict=word, ratio=ratio, low=low, high=high)


@pytest.mark.parametrize(
    ("name", "given", "lines"),
    [
        ("latency_p50_s", verdict("faster", 0.4, 0.39, 0.41), ["2.50x faster", "[2.44, 2.56]"]),
        ("latency_p50_s", verdict("slower", 1.25, 1.2, 1.3), ["1.25x slower", "[1.20, 1.30]"]),
        ("latency_p50_s", verdict("undecided", 0.8, 0.5, 1.25), ["undecided", "[0.80, 2.00]"]),
        ("latency_p50_s", verdict("same", 1.0, 0.995, 1.004), ["same", "[0.996, 1.005]"]),
        ("ttft_p50_s", verdict("faster", 0.4, 0.39, 0.41), ["2.50x faster", "[2.44, 2.56]"]),
        ("tpot_p50_s", verdict("slower", 1.25, 1.2, 1.3), ["1.25x slower", "[1.20, 1.30]"]),
        ("throughput_per_s", verdict("higher", 2.5, 2.4, 2.6), ["2.50x", "[2.40, 2.60]"]),
        ("energy_j_per_inference", verdict("lower", 0.4, 0.39, 0.41), ["0.40x", "[0.39, 0.41]"]),
        ("energy_j_per_inference", verdict("lower", 0.012, 0.011, 0.013), ["0.012x", "[0.011, 0.013]"]),
        ("disk_bytes", verdict("lower", 0.2556, 0.2556, 0.2556), ["0.256x"]),
        ("disk_bytes", verdict("same", 1.0, 1.0, 1.0), ["same"]),
        ("perplexity", Verdict(verdict="inconclusive", reason="one sample only"), ["inconclusive"]),
        ("disk_bytes", None, []),
    ],
)
def test_a_claim_reads_as_people_say_it(name: str, given: Verdict | None, lines: list[str]) -> None:
    assert claim_lines(name, given) == lines


@pytest.mark.parametrize(
    ("name", "value", "kind", "text"),
    [
        ("accuracy", 0.9305, "measured", "93.05 %"),
        ("accuracy@x#2", 1.0, "measured", "100.00 %"),
        ("sparsity", 0.5, "measured", "50.0 %"),
        ("num_parameters", 22_713_216, "measured", "22.7 M"),
        ("effective_bits", 8.125, "measured", "8.12"),
        ("energy_j_per_inference", 0.0123, "estimated", "12.3 mJ (est.)"),
        ("energy_j_per_inference", 0.0123, "modelled", "12.3 mJ (model)"),
        ("throughput_per_s", 250.0, "measured", "250 samples/s"),
        ("throughput_per_s", 49_276.3, "measured", "49,276 samples/s"),
        ("output_tokens_per_s", 1234.5, "measured", "1,234 tokens/s"),
        ("max_rate_per_s", 12.34, "estimated", "12.3 requests/s (est.)"),
        ("perplexity", 21.083, "measured", "21.08"),
        ("latency_p50_s", None, "", "—"),
    ],
)
def test_a_value_reads_with_its_unit_and_says_if_it_was_not_measured(
    name: str, value: float | None, kind: str, text: str
) -> None:
    units = {"energy_j_per_inference": "J/inference", "throughput_per_s": "1/s"}
    unit = "fraction" if name.startswith("accuracy") else units.get(name, "")
    assert value_text(name, Cell(value=value, kind=kind, unit=unit)) == text


def test_offline_shows_throughput_in_the_place_of_latency() -> None:
    assert columns(rows_of([build.record()]))[:2] == ["accuracy", "latency_p50_s"]
    offline = build.record(workload={"scenario": "offline", "batch_size": 32, "sequence_length": 32})
    assert columns(rows_of([offline]))[:2] == ["accuracy", "throughput_per_s"]
    hidden = set(CELL_NAMES) - set(columns(rows_of([offline]), full=True))
    assert hidden == {
        *("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "itl_p50_s", "itl_p99_s", "output_tokens_per_s", "max_rate_per_s"),
        *("energy_j_per_output_token", "energy_j_per_total_token"),
        *("energy_prefill_j_per_inference", "energy_decode_j_per_output_token"),
    }


def test_generation_shows_times_of_tokens_and_energy_per_token() -> None:
    generated = build.measured_by(
        tuple(
            block.model_copy(
                update={
                    "first_token_ns": (2_000_000,) * 20,
                    "token_gaps_ns": (1_000_000,) * 20 * 8,
                    "num_tokens": (9,) * 20,
                }
            )
            for block in build.interleaved().blocks
        )
    )
    found = rows_of([build.record(measurement=generated)])
    shown = ["latency_p50_s", "ttft_p50_s", "tpot_p50_s", "output_tokens_per_s", "energy_j_per_output_token"]
    assert columns(found)[:6] == ["accuracy", *shown]
    cells = found[0].cells
    assert cells["ttft_p50_s"].value == pytest.approx(0.002)
    assert cells["tpot_p50_s"].value == pytest.approx(0.001)
    assert cells["output_tokens_per_s"].value == pytest.approx(9 / 0.010)
    assert cells["energy_j_per_output_token"].value == pytest.approx(0.040 / 9)
    assert cells["energy_j_per_total_token"].value == pytest.approx(0.040 / (9 + 32))
    assert cells["energy_wh_per_1000_queries"].value == pytest.approx(0.040 * 1000 / 3600)
    assert cells["itl_p99_s"].value == pytest.approx(0.001)
    assert {"ttft_p50_s", "itl_p99_s"} <= set(columns(found, full=True))


def test_the_heading_says_under_which_conditions_the_numbers_hold() -> None:
    record = build.record()
    assert heading(record) == (
        "example · embedded:minilm-banking77 · Example CPU, 2 threads · single-stream, batch 1, 32 tokens · 2026-11-22"
    )
    later = record.model_copy(update={"created_utc": "2027-01-01T00:00:00+00:00"})
    assert conditions(later) == conditions(record)
    changed: list[dict[str, Any]] = [
        {"environment": build.environment(num_threads=1)},
        {"environment": build.environment(cpu_model=None)},
        {"workload": {**record.workload, "sequence_length": 64}},
        {"workload": {**record.workload, "output_tokens": 8}},
    ]
    seen = {conditions(record.model_copy(update=each)) for each in changed}
    assert len(seen | {conditions(record)}) == 5
    assert any("32 tokens and 8 generated" in each for each in seen)
    assert any("Example CPU, 1 thread ·" in each for each in seen)
    tried = {"scenario": "offline", "batch_size": 32, "batch_sizes": [1, 8, 32], "sequence_length": 32}
    sweep = record.model_copy(update={"workload": {**tried, "latency_limit_s": 0.05}})
    assert conditions(sweep).endswith(" · offline, best batch of 1, 8, 32, 32 tokens within 50.0 ms")
    clicks = build.accuracy().model_copy(update={"task": "click-prediction"})
    assert conditions(record.model_copy(update={"scores": (clicks,)})).endswith(" · single-stream, batch 1")


def test_what_an_undecided_cost_shows_is_said_of_energy_too() -> None:
    undecided = build.interleaved(build.noisy(0.010, 0.3, seed=1), build.noisy(0.0101, 0.3, seed=2))
    rows = rows_of(build.run_of({"x": build.record("x", measurement=undecided)}))
    notes = [note for note in footnotes(rows, ["energy_j_per_inference"]) if note.startswith("An undecided or same")]
    assert notes == [
        "An undecided or same latency shows the interval of its speed, in times the baseline's; an energy or a rate that "
        "of its ratio to the baseline's."
    ]
    assert not [note for note in footnotes(rows, ["disk_bytes"]) if note.startswith("An undecided")]


def cells_of(markdown: str) -> list[tuple[str, list[Any]]]:
    """The text of every cell of the table and of every note, and what stands in it, as a Markdown parser sees it."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    assert {token.type for token in tokens if token.nesting == 1} <= {
        *("table_open", "thead_open", "tbody_open", "tr_open", "th_open", "td_open"),
        *("bullet_list_open", "list_item_open", "paragraph_open"),
    }
    inline = [token.children or [] for token in tokens if token.type == "inline"]
    return [("".join(child.content for child in found), found) for found in inline]


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=40) | st.text("|`*_[]<>~\\&#-$!(){}\n:/w.", min_size=1)
)
@settings(max_examples=80, deadline=None)
def test_markdown_of_any_name_is_that_name_and_nothing_else(name: str) -> None:
    assume(one_line(name).strip())
    record = build.failed(name, "broken")
    found = cells_of(to_markdown(rows_of([record])))
    text, children = found[7]
    assert text == " ".join(one_line(name).split())
    assert {child.type for child in children} <= {"strong_open", "strong_close", "text", "text_special"}


def test_markdown_of_a_hostile_reason_has_no_link_and_no_markup() -> None:
    markdown = to_markdown(rows_of([build.failed("int8", HOSTILE)]))
    text, children = cells_of(markdown)[-1]
    assert {child.type for child in children} == {"text"} or {child.type for child in children} == {
        "text",
        "text_special",
    }
    assert "<img src=x>" in text
    assert "://" not in markdown
    assert "\x1b" not in markdown
    assert "www.evil" not in markdown


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+1", "-2", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_spreadsheet_runs_nothing(text: str) -> None:
    failed = build.failed(text, text)
    named = build.record(scores=(build.perplexity(1.0, metric=text),))
    for row in csv.reader(io.StringIO(to_csv(rows_of([failed, named])), newline="")):
        assert not [cell for cell in row if cell[:1] in ("=", "+", "@", "\t", "\r", "\n")]
        assert not [cell for cell in row if cell[:1] == "-" and cell == text]


def test_the_csv_holds_what_the_json_holds() -> None:
    rows = rows_of(RECORDS)
    data = json.loads(to_json(rows))
    lines = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert len(lines) == len(data) == 5
    for line, each in zip(lines, data, strict=True):
        assert (line["candidate"], line["status"], line["key"]) == (each["candidate"], each["status"], each["key"])
        for name, cell in each["cells"].items():
            for part, column in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high")):
                assert line[column] == ("" if cell[part] is None else str(cell[part]))
            assert (line[f"{name}_unit"], line[f"{name}_kind"]) == (cell["unit"], cell["kind"])
        for name, found in each["against_baseline"].items():
            assert (line[f"{name}_verdict"], float(line[f"{name}_ratio"])) == (found["verdict"], found["ratio"])


def test_a_negative_number_stays_a_number_in_the_csv() -> None:
    score = build.perplexity(-3.5, metric="log_likelihood")
    line = next(csv.DictReader(io.StringIO(to_csv(rows_of([build.record(scores=(score,))])))))
    assert float(line["log_likelihood"]) == -3.5


def test_no_rows_are_an_empty_table() -> None:
    assert json.loads(to_json([])) == []
    assert len(to_csv([]).splitlines()) == 1


def test_a_column_that_no_recipe_asked_for_is_hidden_and_one_that_lacks_its_numbers_is_not() -> None:
    meters = [{"use": "latency"}, {"use": "size"}]
    said = build.recipe(("x", "broken"), meters=meters)
    measured = build.interleaved(0.01, 0.01, energy_w=None)
    sizes = tuple(each for each in build.readings() if each.name != "peak_memory_bytes")
    records = [
        *(build.record(name, recipe=said, measurement=measured, readings=sizes) for name in ("baseline", "x")),
        build.failed("broken", recipe=said),
    ]
    rows = rows_of(records)
    assert columns(rows) == ["accuracy", "latency_p50_s", "disk_bytes", "sparsity"]
    assert not {"energy_j_per_inference", "peak_memory_bytes"} & set(columns(rows, full=True))
    assert not any("does not ask" in note for note in footnotes(rows, columns(rows)))
    asked = [each.model_copy(update={"recipe": build.recipe(("x", "broken"))}) for each in records]
    assert {"energy_j_per_inference", "peak_memory_bytes"} <= set(columns(rows_of(asked)))
    one_asked = rows_of([records[0], build.record("x", run_id="20261201T000000.000000Z")])
    assert {"energy_j_per_inference", "peak_memory_bytes"} <= set(columns(one_asked))
