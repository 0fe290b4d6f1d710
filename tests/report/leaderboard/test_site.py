"""The site's files: a strict policy, no markup from records, data that is only data, links that hold, readable colours."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import record_builder as build

from compressbench.core.errors import OutputError
from compressbench.records.record import Record
from compressbench.records.store import Located
from compressbench.report.catalog import Catalog, catalog_of
from compressbench.report.leaderboard.board import Board
from compressbench.report.leaderboard.board_build import board_of
from compressbench.report.leaderboard.site import bucket_of, num_buckets, write_site
from compressbench.report.leaderboard.site_data import ascii_json

ROOM = Path(__file__).parent.parent.parent.parent / "compressbench" / "report" / "leaderboard"
OURS = sorted(path for path in (ROOM / "static").glob("*.js") if not path.name.startswith("chart."))
EVIL = "</script><script>alert('é \u2028 😀')</script><!--"


def cataloged(records: list[Record]) -> Catalog:
    return catalog_of([Located(Path(f"{at}.json"), record) for at, record in enumerate(records)])


def example(candidate: str = "int8") -> list[Record]:
    scores = (build.accuracy_after(20, 18),)
    return build.run_of({candidate: build.record(candidate, scores=scores)})


def site(folder: Path, records: list[Record], title: str = "Title") -> tuple[Path, Board]:
    catalog = cataloged(records)
    board = board_of(catalog, title)
    return write_site(board, catalog, folder).parent, board


def argument_of(text: str, call: str) -> Any:
    """What a data file hands over, read as JSON: nothing else may stand in it."""
    assert text.isascii()
    assert text.startswith(f"{call}(")
    assert text.endswith(");\n")
    return json.loads(f"[{text[len(call) + 1 : -3]}]")


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_pages_have_a_strict_policy_and_only_files_of_the_site(tmp_path: Path) -> None:
    folder, _ = site(tmp_path, example(), title=EVIL)
    text = (folder / "index.html").read_text()
    found = Tags(text).tags
    policies = [
        attributes["content"] for tag, attributes in found if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert "default-src 'none'" in (policies[0] or "")
    assert "unsafe" not in (policies[0] or "")
    scripts = [attributes for tag, attributes in found if tag == "script"]
    assert scripts
    for attributes in scripts:
        assert (folder / str(attributes["src"])).is_file()
    for tag, attributes in found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("href", "src"):
            address = attributes.get(name)
            local = address is None or address.startswith(("#", "data:,")) or (folder / address).is_file()
            assert local, address
    assert re.findall(r"<script[^>]*>[^<]", text) == []


def test_what_was_left_out_stands_on_the_page(tmp_path: Path) -> None:
    catalog = cataloged(example())
    board = board_of(catalog, "Title")._replace(unreadable=("<b>a.json</b>: its checksum doesn't match",))
    text = write_site(board, catalog, tmp_path).read_text()
    assert "1 file was left out" in text
    assert "&lt;b&gt;a.json&lt;/b&gt;: its checksum doesn&#39;t match" in text


def test_no_script_of_ours_makes_markup_or_code_of_a_text() -> None:
    assert len(OURS) >= 8
    for path in OURS:
        text = path.read_text()
        assert (
            re.findall(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|setHTML", text
            )
            == []
        )
        assert (
            re.findall(
                r"https?://(?!www\.w3\.org/2000/svg)|\bfetch\b|XMLHttpRequest|WebSocket|sendBeacon|\bimport\b", text
            )
            == []
        )
        assert len(text.splitlines()) <= 300, path.name
    for path in (ROOM / "static").glob("*.css"):
        assert re.findall(r"url\(|@import|expression", path.read_text()) == []


def test_templates_escape_and_have_nothing_inline() -> None:
    for path in (ROOM / "templates").glob("*.jinja"):
        assert (
            re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|\|\s*safe|autoescape", path.read_text()) == []
        )


def test_data_files_are_ascii_json_and_nothing_else(tmp_path: Path) -> None:
    folder, board = site(tmp_path, example(EVIL), title=EVIL)
    text = (folder / "data" / "board.js").read_text()
    assert text.isascii()
    head = json.loads(text.removeprefix("compressbench.board=").removesuffix(";\n"))
    assert head["groups"][0]["numRows"] == 2
    index, group = argument_of((folder / "data" / "group-0.js").read_text(), "compressbench.addGroup")
    assert index == 0
    assert [row["id"] for row in group["rows"]] == [place.id for place in board.groups[0].places]
    evil = next(row for row in group["rows"] if row["kind"] != "baseline")
    assert evil["name"] == EVIL.replace("\u2028", " ")


def test_a_record_is_found_in_the_file_that_its_id_says(tmp_path: Path) -> None:
    records = [record for number in range(9) for record in example(f"candidate-{number}-é")]
    records = [
        record.model_copy(update={"run_id": f"202611{10 + at}T074513.926665Z"}) for at, record in enumerate(records)
    ]
    folder, board = site(tmp_path, records)
    count = num_buckets(board.num_rows)
    assert count == 3
    places = [place for group in board.groups for place in group.places]
    for place in places:
        lines = (folder / "data" / f"records-{bucket_of(place.id, count)}.js").read_text().splitlines(keepends=True)
        found = dict(argument_of(line, "compressbench.addRecord") for line in lines)
        assert found[place.id]["row"]["candidate"] == place.contender.candidate
        assert "environment" in found[place.id]["detail"]


@pytest.mark.parametrize(("text", "known"), [("", 2166136261), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)])
def test_buckets_are_fnv_1a(text: str, known: int) -> None:
    # the test vectors of Fowler, Noll and Vo
    assert bucket_of(text, 2**32) == known


def test_ascii_json_is_the_same_json() -> None:
    value = {"a": 'é \u2028 😀 \\u00e9 " </script>', "b": [1.5, None]}
    text = ascii_json(json.dumps(value, ensure_ascii=False))
    assert text.isascii()
    assert json.loads(text) == value


def test_a_site_is_the_same_when_it_is_built_again_and_old_data_goes(tmp_path: Path) -> None:
    folder, _ = site(tmp_path / "one", example())
    (folder / "data" / "records-77.js").write_text("old")
    (folder / "data" / "group-5.js").write_text("old")
    site(tmp_path / "one", example())
    site(tmp_path / "two", example())
    files = {
        path.relative_to(tmp_path / "one"): path.read_bytes()
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    }
    again = {
        path.relative_to(tmp_path / "two"): path.read_bytes()
        for path in (tmp_path / "two").rglob("*")
        if path.is_file()
    }
    assert files == again


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        site(tmp_path / "file", example())


def test_the_chart_library_comes_with_its_licence(tmp_path: Path) -> None:
    folder, _ = site(tmp_path, example())
    assert "Chart.js v4" in (folder / "assets" / "chart.umd.min.js").read_text()[:200]
    assert "MIT License" in (folder / "assets" / "chart.LICENSE.md").read_text()


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def themes() -> dict[str, dict[str, str]]:
    text = (ROOM / "static" / "site.css").read_text()
    blocks = re.findall(r"^:root(\[data-theme=\"dark\"\])? \{(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    return {
        "dark" if dark else "light": dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", body)) for dark, body in blocks
    }


def test_contrast_is_computed_as_wcag_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_can_be_read_in_both_themes(theme: str) -> None:
    tokens = themes()[theme]
    for text in ("--text", "--muted", "--accent", "--good", "--bad", "--warn"):
        for ground in ("--page", "--surface", "--raised"):
            assert contrast(tokens[text], tokens[ground]) >= 4.5, (text, ground)
    assert contrast(tokens["--accent"], tokens["--accent-soft"]) >= 4.5
    assert contrast(tokens["--text"], tokens["--accent-soft"]) >= 4.5
    assert contrast(tokens["--muted"], tokens["--accent-soft"]) >= 4.5
    assert contrast(tokens["--tip-text"], tokens["--tip"]) >= 4.5
    for kind in ("baseline", "quantization", "pruning", "distillation", "combined", "other"):
        assert contrast(tokens[f"--kind-{kind}"], tokens["--surface"]) >= 3, kind
