"""What `statement` writes for others: a model card that the Hub's own parser reads, a page that allows nothing but its own
style, and no name of a record as markup in either.
"""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest
import record_builder as build
from huggingface_hub import EvalResult, ModelCard
from reading_verbs import say
from statement_parts import EXAMPLE, FLAGS, int8, numbers, stated, write


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
