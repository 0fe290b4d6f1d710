"""The page of a record in a real browser, opened from a disk: numbers, flips, charts, both themes, and no errors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import record_builder as build

from compressbench.core.questions import SampleRow
from compressbench.records.audit import Audit, DiskAudit, Finding
from compressbench.records.record import Record
from compressbench.records.store import Located, RecordStore, read_located, stem_of
from compressbench.report.detail import detail_of
from compressbench.report.rows import Row, rows_of
from compressbench.report.words import TITLES, value_text

ROOM = Path(__file__).parent.parent.parent.parent / "compressbench" / "report" / "leaderboard"
SCRIPTS = sorted((ROOM / "static").glob("record*.js"))
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:"
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
NUM_BUCKETS = 3

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page was not opened")
needs_frame = pytest.mark.skipif(
    not (ROOM / "templates" / "base.html.jinja").is_file(), reason="the frame of the site's pages is not there"
)


def test_no_script_of_the_page_can_make_markup_or_code_of_a_text() -> None:
    assert len(SCRIPTS) >= 4
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|setTimeout\(\s*[\"'`]"
    )
    for path in [*SCRIPTS, ROOM / "templates" / "record.html.jinja"]:
        text = path.read_text()
        assert re.findall(forbidden, text) == [], path.name
        assert re.findall(r"https?://|@import|url\(", text) == [], path.name
        assert len(text.splitlines()) <= 300, path.name


def test_the_template_has_no_script_and_no_style_of_its_own() -> None:
    text = (ROOM / "templates" / "record.html.jinja").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|\|\s*safe", text) == []


def test_the_page_calls_numbers_what_the_terminal_calls_them() -> None:
    text = (ROOM / "static" / "record-words.js").read_text()
    found = re.search(r"const TITLES = (\{.*?\});", text, re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == TITLES


def bucket_of(name: str) -> int:
    found = 2166136261
    for byte in name.encode():
        found = (found ^ byte) * 16777619 % 2**32
    return found % NUM_BUCKETS


def audit() -> Audit:
    """One false claim, whose words are hostile."""
    false = Finding(code="wider-than-claimed", message=EVIL, is_false_claim=True, step="gptq")
    disk = DiskAudit(implied_bytes=None, disk_bytes=None, tolerance_bytes=0, ratio=None)
    return Audit(
        modules=(), num_parameters=None, effective_bits_compressed=None, effective_bits_all=None, dtypes={}, disk=disk,
        claims=(), kernels={}, findings=(false,), not_checked=(), claim_ok=False,
    )  # fmt: skip


def answers(score: float) -> list[SampleRow]:
    said = f"{'right' if score else 'wrong'}  {EVIL}"
    return [
        SampleRow(id=str(at), prediction=said, target=EVIL, score=score if at < 3 else 1.0, num_tokens=at + 5)
        for at in range(8)
    ]


def written(folder: Path) -> list[Located]:
    """A run with a hostile candidate that lost three samples, and one that failed."""
    store = RecordStore(folder)
    said = build.recipe(("int8", "broken"), model={"id": EVIL})
    for name, own in (("baseline", answers(1.0)), ("int8", answers(0.0))):
        file, sha256 = store.write_samples(stem_of("example", name, build.RUN_ID), "text-classification", own)
        paired = None if name == "baseline" else build.counts(3, 0, 8)
        score = build.accuracy(5 / 8, num_samples=8, paired=paired, samples_file=file, samples_sha256=sha256)
        is_baseline = name == "baseline"
        measured = build.interleaved(build.noisy(0.010, seed=1), build.noisy(0.010 if is_baseline else 0.004, seed=2))
        steps = () if is_baseline else (build.step(EVIL, option=EVIL),)
        made = build.record(name, recipe=said, scores=(score,), measurement=measured, steps=steps)
        audited = {"audit": None if is_baseline else audit(), "environment": build.environment(cpu_model=EVIL)}
        store.append(made.model_copy(update=audited))
    store.append(build.failed("broken", EVIL, recipe=said))
    return read_located([folder])[0]


class Site:
    """Pages in a folder, with the row of each record by its id."""

    def __init__(self, folder: Path, rows: dict[str, Row]) -> None:
        self.folder, self.rows = folder, rows

    def url(self, name: str) -> str:
        return f"{(self.folder / 'record.html').as_uri()}#{quote(name)}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    located = written(tmp_path_factory.mktemp("records"))
    out = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOM / "static", out / "assets")
    (out / "data").mkdir()
    loader = PackageLoader("compressbench.report.leaderboard")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("record.html.jinja")
    (out / "record.html").write_text(page.render(title="Board", policy=POLICY, num_buckets=NUM_BUCKETS))
    rows = {each.path.stem: row for each, row in zip(located, rows_of([one.record for one in located]), strict=True)}
    for each in located:
        data = {"row": rows[each.path.stem].model_dump(mode="json"), "detail": detail_of(*each)}
        with (out / "data" / f"records-{bucket_of(each.path.stem)}.js").open("a") as file:
            file.write(f"compressbench.addRecord({json.dumps(each.path.stem)},{json.dumps(data)});\n")
    return Site(out, rows)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails its test at any error on the console and any request that leaves the disk."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, color_scheme="light")
    found = context.new_page()
    troubles: list[str] = []
    found.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: troubles.append(str(error)))
    found.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else troubles.append(asked.url))
    yield found
    context.close()
    assert troubles == []


def opened(page: Any, site: Site, candidate: str) -> tuple[str, Row]:
    name = next(name for name, row in site.rows.items() if row.candidate == candidate)
    page.goto(site.url(name))
    page.wait_for_selector("#record:not([hidden]) h1")
    return name, site.rows[name]


PAINTED = """id => {
  const canvas = document.getElementById(id);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let at = 0; at < data.length; at += 4) if (data[at + 3]) seen.add(data.slice(at, at + 4).join());
  return [...seen].length;
}"""


@needs_browser
@needs_frame
def test_a_record_opens_from_a_disk_with_its_numbers_flips_and_charts(page: Any, site: Site) -> None:
    name, row = opened(page, site, "int8")
    assert page.inner_text("h1") == "int8"
    assert page.title() == "int8 · example", "no text of a record ran"
    assert page.inner_text(".record-url") == site.url(name)
    for metric in ("accuracy", "latency_p50_s", "energy_j_per_inference", "disk_bytes"):
        assert page.get_by_text(value_text(metric, row.cells[metric]), exact=True).first.is_visible(), metric
    speed = row.against_baseline["latency_p50_s"]
    assert speed.ratio is not None
    claims = page.locator(".record-numbers .record-good").all_inner_texts()
    assert f"{1 / speed.ratio:.2f}× faster" in claims
    lost = page.locator(".record-flips-lost tbody tr")
    assert lost.count() == 3
    assert lost.first.locator(".record-text").all_inner_texts() == [EVIL, f"right  {EVIL}", f"wrong  {EVIL}"]
    assert lost.first.locator(".record-mark").all_inner_texts() == ["right", "wrong"]
    for canvas in ("record-histogram", "record-run"):
        assert page.evaluate(PAINTED, canvas) > 20, f"{canvas} is blank"
        assert "240 calls" in page.get_attribute("#record-histogram", "aria-label")
    assert page.locator(".record-notice-bad p").all_inner_texts() == [
        "The audit found false claims", EVIL, "It can't be true, and is not ranked",
    ]  # fmt: skip
    assert "compressbench run example.yaml --out results/example" in page.inner_text("#section-again")


@needs_browser
@needs_frame
def test_the_theme_changes_the_page_and_its_charts(page: Any, site: Site) -> None:
    opened(page, site, "int8")
    colour = "() => getComputedStyle(document.body).backgroundColor"
    pixels = "() => document.getElementById('record-histogram').toDataURL()"
    before = page.evaluate(colour), page.evaluate(pixels)
    page.click("#theme")
    assert page.evaluate(colour) != before[0]
    assert page.evaluate(pixels) != before[1]


@needs_browser
@needs_frame
def test_other_records_open_in_place_and_an_unknown_one_is_said(page: Any, site: Site) -> None:
    opened(page, site, "int8")
    failed = next(name for name, row in site.rows.items() if row.candidate == "broken")
    page.evaluate("id => { window.location.hash = id; }", failed)
    page.wait_for_selector("h1:has-text('broken')")
    assert EVIL in page.inner_text(".record-notice-bad")
    assert page.locator("canvas").count() == 0, "nothing was measured"
    known = set(map(bucket_of, site.rows))
    unknown = next(name for name in map(str, range(99)) if bucket_of(name) in known)
    page.evaluate("id => { window.location.hash = id; }", unknown)
    page.wait_for_selector("#record-status:has-text('There is no record')")
    assert not page.locator("#record").is_visible()


@needs_browser
@needs_frame
def test_the_keyboard_reaches_every_section_and_nothing_is_wider_than_a_phone(page: Any, site: Site) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    opened(page, site, "int8")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    sections = page.locator(".record-section h2").all_inner_texts()
    buttons = page.locator(".record-nav button")
    assert buttons.count() == len(sections)
    for at, title in enumerate(sections):
        buttons.nth(at).focus()
        page.keyboard.press("Enter")
        assert page.evaluate("() => document.activeElement.textContent") == title
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('table')].filter((t) => !t.caption?.textContent || "
        "[...t.querySelectorAll('th')].some((th) => !th.scope)).length"
    )
    assert unnamed == 0


def test_every_record_of_the_made_up_run_is_what_the_page_needs(tmp_path: Path) -> None:
    records: list[Record] = [each.record for each in written(tmp_path)]
    assert [(each.candidate, each.status) for each in records] == [
        ("baseline", "ok"), ("int8", "ok"), ("broken", "failed"),
    ]  # fmt: skip
