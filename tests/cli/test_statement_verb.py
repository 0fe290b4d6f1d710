"""`compressbench statement`: its numbers are those of `carbon`, each leads to its record, the model card is one that the
Hub's own parser reads, and no name of a record is markup.
"""

from __future__ import annotations

import hashlib
import html.parser
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import record_builder as build
from huggingface_hub import EvalResult, ModelCard
from reading_verbs import say

from compressbench.core.reading import Reading
from compressbench.records.record import Artefact, Record
from compressbench.records.store import RecordStore

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "data" / "records-v4"
FLAGS = (
    *("--grid-g-per-kwh", "381", "--pue", "1.2", "--embodied-kg", "900", "--share", "0.01", "--lifetime-years", "4"),
    *("--utilisation", "0.5", "--wue-site", "0.2", "--wue-grid", "3", "--price-per-hour", "2"),
)
UNHELD = tuple(flag for at, flag in enumerate(FLAGS) if not 4 <= at < 8)


def write(folder: Path, *candidates: Record, **baseline: Any) -> str:
    named = {each.candidate: each for each in candidates}
    store = RecordStore(folder)
    for record in build.run_of(named, **{"measurement": build.interleaved(build.noisy(0.010)), **baseline}):
        store.append(record)
    return str(folder)


def int8(name: str = "int8", **changed: Any) -> Record:
    measured = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.006, seed=2), rounds=12)
    used = Reading(
        name="compress_energy_j", value=7200.0, low=7000.0, high=7400.0, kind="measured", source="a made-up meter",
        boundary="device", window_s=100.0, tick_s=0.02,
    )  # fmt: skip
    fields = {"measurement": measured, "readings": (*build.readings(compress_seconds=100.0), used)}
    return build.record(name, **{**fields, **changed})


def stated(capsys: pytest.CaptureFixture[str], *line: str, code: int = 0) -> dict[str, Any]:
    said = say(capsys, "statement", *line, "--json")
    assert said.code == code, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def numbers(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in found["numbers"]}


@pytest.mark.parametrize("flags", [FLAGS, UNHELD, ("--region", "FRA"), ()])
def test_its_numbers_are_those_of_carbon(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    found = stated(capsys, str(EXAMPLE), "--candidate", "gptq", *flags)
    sheet = json.loads(say(capsys, "carbon", str(EXAMPLE), *flags, "--json").out)
    row = next(each for each in sheet["candidates"] if each["candidate"] == "gptq")
    compared = 0
    for number in found["numbers"]:
        if number["carbon"]:
            there: Any = row
            for name in number["carbon"].split("/"):
                there = there[name]
            same = ("value", "low", "high") if number["value"] is not None else ("value",)
            assert [number[name] for name in same] == [there[name] for name in same], number["id"]
            if "kind" in there:
                assert (number["kind"], number["reason"]) == (there["kind"], there["reason"])
            compared += 1
    assert compared >= 12
    assert found["inputs"].items() >= sheet["inputs"].items()


def test_its_energies_are_those_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers(stated(capsys, str(EXAMPLE), "--candidate", "gptq"))
    rows = json.loads(say(capsys, "table", str(EXAMPLE), "--format", "json").out)
    cells = next(each for each in rows if each["candidate"] == "gptq")["cells"]
    for mine, theirs in (
        ("energy_j_per_inference", "energy_j_per_inference"),
        ("energy_wh_per_1000_inferences", "energy_wh_per_1000_queries"),
        ("energy_j_per_correct_answer", "energy_j_per_correct"),
    ):
        assert found[mine]["value"] == pytest.approx(cells[theirs]["value"], rel=1e-9)


def test_without_the_hardware_the_total_is_partial_and_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    whole = numbers(stated(capsys, str(EXAMPLE), "--candidate", "gptq", *FLAGS))
    found = stated(capsys, str(EXAMPLE), "--candidate", "gptq", *UNHELD)
    part = numbers(found)
    assert "carbon_total_per_1000_inferences" not in part
    partial = part["carbon_partial_total_per_1000_inferences"]
    assert (partial["is_partial"], partial["lacks"]) == (True, ["embodied"])
    assert partial["value"] == whole["carbon_operational_per_1000_inferences"]["value"]
    assert not whole["carbon_total_per_1000_inferences"]["is_partial"]
    assert any(line.startswith("total carbon of use is partial: embodied is missing") for line in found["not_stated"])
    assert "PARTIAL: without embodied" in say(capsys, "statement", str(EXAMPLE), "--candidate", "gptq", *UNHELD).out


def steps_of(path: str) -> list[str]:
    return re.findall(r"\.\w+|\[[^\]]*\]", path.removeprefix("$"))


def follow(data: Any, path: str) -> list[Any]:
    """As much of JSONPath (RFC 9535) as statements use."""
    found = [data]
    for step in steps_of(path):
        if step.startswith("."):
            found = [each[step[1:]] for each in found if step[1:] in each]
        elif step == "[*]":
            found = [each for many in found for each in many]
        elif name := re.fullmatch(r"\[\?@\.(\w+)=='([\w-]+)'\]", step):
            found = [each for many in found for each in many if each[name[1]] == name[2]]
        else:
            found = [many[int(step[1:-1])] for many in found]
    return found


def test_every_number_leads_to_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, int8(), build.record("other"))
    found = stated(capsys, folder, "--candidate", "int8", *FLAGS)
    records = {}
    for letter, files in found["records"].items():
        for each in files:
            data = (tmp_path / each["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == each["sha256"]
        records[letter] = [json.loads((tmp_path / each["file"]).read_text()) for each in files]
    assert [each["candidate"] for each in records["C"]] == ["baseline", "int8", "other"]
    for number in [*found["numbers"], *found["facts"]]:
        if number.get("value", number.get("text")) is not None:
            assert number["from"], number
            for place in number["from"]:
                there = [each for record in records[place["record"]] for each in follow(record, place["path"])]
                assert there, place
    assert {place["record"] for each in found["numbers"] for place in each["from"]} == {"A", "B", "C"}
    # and what is there gives the number
    paths = [place["path"] for place in numbers(found)["energy_j_per_inference"]["from"]]
    joules, calls = (follow(records["A"][0], path) for path in paths)
    by_hand = math.fsum(joules) / sum(map(len, calls))
    assert numbers(found)["energy_j_per_inference"]["value"] == pytest.approx(by_hand, rel=1e-9)


def test_what_compressing_took_stands_with_and_without_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, int8(), build.record("other"))
    found = numbers(stated(capsys, folder, "--candidate", "int8", *FLAGS))
    assert found["compress_energy_j"]["value"] == 7200
    even = json.loads(say(capsys, "breakeven", folder, "--json").out)
    cost = next(each for each in even["candidates"] if each["candidate"] == "int8")["accounts"][0]["cost"]
    with_search = found["compress_energy_with_search_j"]
    assert with_search["value"] == cost["value"]["value"] > 7200
    assert with_search["lacks"] == cost["missing"]
    assert found["compress_carbon_operational"]["value"] == pytest.approx(7200 / 3.6e6 * 1.2 * 381)


def card_of(text: str) -> Any:
    """As the Hub's client reads a README.md; anything unsound raises."""
    return ModelCard(text).data


def test_the_model_card_is_what_the_hubs_parser_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, int8())
    line = ("statement", folder, "--candidate", "int8", *(flag for flag in FLAGS if flag not in FLAGS[:2]))
    text = say(capsys, *line, "--region", "FRA").out
    found = json.loads(say(capsys, *line, "--region", "FRA", "--json").out)
    card, by_id = card_of(text), numbers(found)
    assert card.to_dict() == found["model_card"] | {"model-index": card.to_dict()["model-index"]}
    # in grams: 7.2 kJ are 2 Wh, times PUE and France's grid
    grid = found["inputs"]["grid"]["value"]
    emissions = card.co2_eq_emissions
    assert emissions["emissions"] == by_id["compress_carbon_operational"]["value"]
    assert emissions["emissions"] == pytest.approx(0.002 * 1.2 * grid)
    assert set(emissions) == {"emissions", "source", "training_type", "geographical_location", "hardware_used"}
    assert emissions["geographical_location"] == "France"
    assert "measured" in emissions["source"]
    assert card.model_name == "example-int8"
    results: dict[str, EvalResult] = {each.metric_type: each for each in card.eval_results}
    accuracy = results["accuracy"]
    assert (accuracy.task_type, accuracy.dataset_type, accuracy.dataset_split) == (
        "text-classification",
        "embedded:banking77",
        "test",
    )
    assert accuracy.metric_value == by_id["quality_accuracy"]["value"]
    energy = results["energy_j_per_inference"]
    assert energy.metric_value == by_id["energy_j_per_inference"]["value"]
    assert energy.metric_args is not None
    assert energy.metric_args["boundary"] == "device"
    assert energy.metric_name is not None
    assert "estimated" in energy.metric_name or "measured" in energy.metric_name
    assert results["gco2e_per_1000_inferences"].metric_value == by_id["carbon_total_per_1000_inferences"]["value"]


def test_emissions_are_left_out_where_they_would_be_made_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, int8())
    nowhere = stated(capsys, folder, "--candidate", "int8")
    assert "co2_eq_emissions" not in nowhere["model_card"]
    assert any(line.startswith("co2_eq_emissions: the grid is not known") for line in nowhere["not_stated"])
    placeless = stated(capsys, folder, "--candidate", "int8", "--grid-g-per-kwh", "100")["model_card"]
    assert "geographical_location" not in placeless["co2_eq_emissions"]
    baseline = stated(capsys, folder, "--candidate", "baseline", "--region", "FRA")
    assert "co2_eq_emissions" not in baseline["model_card"]
    assert any("nothing was compressed" in line for line in baseline["not_stated"])
    assert not [each for each in baseline["numbers"] if each["section"] in ("against_baseline", "compressing")]
    unmetered = stated(capsys, str(EXAMPLE), "--candidate", "gptq", "--region", "FRA")
    assert "co2_eq_emissions" not in unmetered["model_card"]


class Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "<script>alert(1)</script>\"'&|`*[x](javascript:1)\u202e\n---\nlicense: mit #"


def test_no_text_of_a_record_is_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = build.environment(cpu_model=f"EPYC {HOSTILE}")
    model = build.record("int8").model
    assert model is not None
    evil = model.model_copy(update={"id": HOSTILE, "revision": HOSTILE})
    folder = write(tmp_path, int8(environment=where, model=evil), environment=where)
    page = Page()
    text = say(capsys, "statement", folder, "--candidate", "int8", *FLAGS, "--format", "html").out
    page.feed(text)
    assert {tag for tag, _ in page.tags} == {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "main",
            "header",
            "p",
            "h1",
            "h2",
            "ul",
            "ol",
            "li",
            "span",
        ),
        *("section", "dl", "div", "dt", "dd", "table", "tr", "th", "td", "sup", "a", "strong", "em", "code"),
    }
    assert {name for _, attributes in page.tags for name in attributes} <= {
        *("lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "scope"),
    }
    assert all(str(attributes["href"]).startswith("#") for tag, attributes in page.tags if tag == "a")
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in text
    card = say(capsys, "statement", folder, "--candidate", "int8", "--region", "FRA").out
    assert card_of(card).license is None
    body = card.split("\n---\n", 1)[1]
    assert not re.search(r"(?<!\\)<script", body)
    assert not re.search(r"(?<!\\)\[x\]", body)


def test_the_page_allows_its_own_style_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    import base64

    text = say(capsys, "statement", str(EXAMPLE), "--candidate", "gptq", "--format", "html").out
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    told = policy[1].replace("&#39;", "'")
    assert told == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "://" not in style[1]
    assert "<script" not in text


def test_what_isnt_what_it_claims_is_not_to_be_relied_on(capsys: pytest.CaptureFixture[str]) -> None:
    said = say(capsys, "statement", str(EXAMPLE), "--candidate", "gptq-in-name", "--json")
    assert said.code == 4
    found = json.loads(said.out)
    assert found["doubts"] == [
        "false claim: 8 bits are stored per weight where 4 are claimed; no saving is based on it"
    ]
    assert all(each["value"] is None for each in found["numbers"] if "with_search" not in each["id"])
    assert "Not to be relied on" in say(capsys, "statement", str(EXAMPLE), "--candidate", "gptq-in-name").out


def test_the_artefact_is_stated_by_its_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = Artefact(folder="int8", num_bytes=1000, sha256="ab" * 32, max_difference=0.0)
    found = stated(capsys, write(tmp_path, int8(artefact=saved)), "--candidate", "int8")
    facts = {each["name"]: each for each in found["facts"]}
    assert "ab" * 32 in facts["artefact"]["text"]
    assert any(
        line.startswith("artefact: ") for line in stated(capsys, str(EXAMPLE), "--candidate", "baseline")["not_stated"]
    )


def test_one_model_has_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = say(capsys, "statement", str(EXAMPLE))
    assert (several.code, "Name one: baseline, gptq" in several.err) == (2, True)
    unknown = say(capsys, "statement", str(EXAMPLE), "--candidate", "gptqq")
    assert (unknown.code, "Did you mean 'gptq'?" in unknown.err) == (2, True)
    only = write(tmp_path, int8())
    assert stated(capsys, only)["candidate"] == "int8"


def test_it_is_written_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    line = ("statement", str(EXAMPLE), "--candidate", "gptq", "--format", "html")
    printed = say(capsys, *line).out
    said = say(capsys, *line, "--output", str(out))
    assert (said.code, said.out) == (0, "")
    assert out.read_text() == printed
    assert say(capsys, *line, "--output", str(tmp_path / "nowhere" / "page.html")).code == 2
