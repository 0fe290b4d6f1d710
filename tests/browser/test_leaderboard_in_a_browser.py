"""The leaderboard of the committed results and of hostile names, opened from a disk in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import record_builder as build

from compressbench.records.store import Located, RecordStore, dump
from compressbench.report.catalog import catalog_of, open_catalog
from compressbench.report.leaderboard.board_build import board_of
from compressbench.report.leaderboard.site import write_site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest_plugins = ("browser_parts",)
ROOT = Path(__file__).parent.parent.parent
HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "=HYPERLINK(\"http://example.com\",\"x\")",
    "</script><svg onload=document.title='owned'>",
    "javascript:document.title='owned'",
    "‮gnp.exe\u2028\x1b[31m",
)  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of what the repository's own runs left."""
    catalog = open_catalog([ROOT / "results"])
    return write_site(board_of(catalog, "Results"), catalog, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def few_groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So few groups that each has a link; of many there is one to be picked."""
    folders = [ROOT / "results" / name for name in ("shakespeare-quality", "minilm-offline")]
    catalog = open_catalog([ROOT / "tests" / "data" / "quickstart", *folders])
    return write_site(board_of(catalog, "Results"), catalog, tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def hostile_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    store = RecordStore(folder / "records")
    said = build.recipe(["x"], name="<b>bold</b>")
    found = build.record("x", recipe=said, scores=(build.accuracy_after(20, 15),))
    for number, name in enumerate(("baseline", *HOSTILE)):
        renamed = found.model_copy(update={"candidate": name})
        # the store takes no such names, a stranger's folder does
        (store.folder / f"record-{number}.json").write_bytes(dump(renamed))
    catalog = open_catalog([store.folder])
    return write_site(board_of(catalog, "<i>Title</i>"), catalog, folder / "site")


def names(page: Page) -> list[str]:
    return page.locator("#ranked tbody th a").all_inner_texts()


def group(index: Path, title: str) -> str:
    text = (index.parent / "data" / "board.js").read_text()
    board = json.loads(text.removeprefix("compressbench.board=").removesuffix(";\n"))
    return "#group=" + str(next(each["key"] for each in board["groups"] if each["title"] == title))


def test_a_column_is_sorted_by_the_keyboard_and_says_so(index: Path, watched: Any) -> None:
    page = watched(index, fragment=group(index, "quickstart"))
    head = page.locator("#ranked th", has_text="size on disk")
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(page)[0] == "bf16-int8-weights"
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page)[-1] == "bf16-int8-weights"
    assert page.locator("#ranked th[aria-sort]:not([aria-sort=none])").count() == 1


def test_rows_without_a_value_come_last_in_both_directions(few_groups: Path, watched: Any) -> None:
    page = watched(few_groups, fragment=group(few_groups, "quickstart"))
    button = page.get_by_role("button", name="latency p50")
    for _ in range(2):
        button.click()
        last = page.locator("#ranked tbody tr").last
        assert last.locator("td[data-label='latency p50'] .value").inner_text().startswith("—")


def test_rows_are_filtered_by_words_verdicts_badges_and_front(few_groups: Path, watched: Any) -> None:
    page = watched(few_groups, fragment=group(few_groups, "quickstart"))
    page.get_by_label("Find").fill("magnitude")
    assert names(page) == ["magnitude-50", "magnitude-2of4"]
    assert page.get_by_role("status").inner_text() == "2 of 8 rows"
    page.get_by_label("Find").fill("")
    page.get_by_role("checkbox", name="equivalent").check(force=True)
    assert names(page) == ["bf16", "int8-dynamic", "bf16-int8-weights"]
    page.get_by_role("checkbox", name="unsteady").check(force=True)
    assert names(page) == ["bf16-int8-weights"]
    page.get_by_role("checkbox", name="equivalent").uncheck(force=True)
    page.get_by_role("checkbox", name="unsteady").uncheck(force=True)
    page.get_by_role("checkbox", name="only what is on a front").check(force=True)
    assert "bf16" in names(page)
    assert "magnitude-2of4" not in names(page)


def test_a_dash_says_its_reason_at_a_key(few_groups: Path, watched: Any) -> None:
    page = watched(few_groups, fragment=group(few_groups, "quickstart"))
    dash = page.locator("tr", has_text="magnitude-2of4").locator("button.why").first
    assert "too few for p50" in (dash.get_attribute("aria-label") or "")
    dash.focus()
    page.keyboard.press("Enter")
    assert page.locator("#note").is_visible()
    assert "too few for p50" in page.locator("#note").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#note").is_visible()


def test_what_can_not_be_ranked_stands_apart_with_its_reason(index: Path, watched: Any) -> None:
    page = watched(index, fragment=group(index, "all-methods-cpu"))
    assert "fp8" not in names(page)
    row = page.locator("#unranked tbody tr")
    assert row.locator("th a").inner_text() == "fp8"
    assert "needs cuda" in (row.locator(".rank button").get_attribute("aria-label") or "")


def test_a_row_links_to_its_record(index: Path, watched: Any) -> None:
    page = watched(index, fragment=group(index, "quickstart"))
    link = page.get_by_role("link", name="int8-dynamic", exact=True)
    assert (link.get_attribute("href") or "").startswith("record.html#quickstart.int8-dynamic.2026")
    if not (index.parent / "record.html").is_file():
        pytest.skip("the page of a record is not part of this package")
    # a key, because a plot that is drawn meanwhile may move what a click is aimed at
    link.press("Enter")
    page.wait_for_url("**/record.html#*")
    page.get_by_role("heading", name="int8-dynamic", level=1).wait_for()


def test_another_metric_ranks_anew_and_stays_in_the_address(index: Path, watched: Any) -> None:
    page = watched(index, fragment=group(index, "shakespeare-quality"))
    before = page.locator("#ranked tbody .rank").all_inner_texts()
    page.get_by_label("Metric").select_option(label="acc")
    page.wait_for_url("**metric=1")
    page.wait_for_selector("#ranked td[data-label='acc']")
    assert page.locator("#ranked tbody .rank").all_inner_texts() != before
    page.reload()
    page.wait_for_selector("#ranked td[data-label='acc']")


def test_groups_are_chosen_by_links_that_stay(few_groups: Path, watched: Any) -> None:
    page = watched(few_groups)
    page.get_by_role("link", name="minilm-offline").click()
    page.get_by_role("heading", name="minilm-offline").wait_for()
    page.wait_for_selector("#ranked td[data-label='throughput']")
    assert page.locator("#groups [aria-current=true]").count() == 1
    page.go_back()
    page.get_by_role("heading", name="shakespeare-quality").wait_for()


def test_one_of_many_groups_is_picked_from_a_list_and_the_way_back_stays(index: Path, watched: Any) -> None:
    page = watched(index)
    first = page.locator("#group-title").inner_text()
    picker = page.locator("#group-picker")
    choice = picker.locator("option", has_text="minilm-offline")
    picker.select_option(value=choice.get_attribute("value"))
    page.get_by_role("heading", name="minilm-offline").wait_for()
    page.wait_for_selector("#ranked td[data-label='throughput']")
    page.go_back()
    page.get_by_role("heading", name=first, exact=True).wait_for()
    assert picker.locator("option:checked").inner_text().startswith(first)


def test_the_theme_follows_the_system_is_switched_and_stays(index: Path, watched: Any) -> None:
    page = watched(index, theme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    button = page.locator("#theme")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    light = page.evaluate(colour)
    assert light != dark
    page.reload()
    assert page.evaluate(colour) == light
    assert page.locator("#theme").get_attribute("aria-pressed") == "false"


@pytest.mark.parametrize("title", ["quickstart", "shakespeare-quality", "all-methods-cpu"])
def test_nothing_overflows_on_a_phone(index: Path, watched: Any, title: str) -> None:
    page = watched(index, fragment=group(index, title), width=390)
    page.wait_for_selector("canvas")
    page.locator("summary").evaluate_all("all => all.forEach(each => each.click())")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    assert page.locator("#ranked tbody tr").first.evaluate("row => getComputedStyle(row).display") == "grid"


def test_everything_has_a_name_and_is_reached_by_the_keyboard(index: Path, watched: Any) -> None:
    page = watched(index, fragment=group(index, "quickstart"))
    page.wait_for_selector("canvas")
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    for role in ("button", "link", "checkbox", "searchbox", "img", "table", "region"):
        assert page.get_by_role(role).count() > 0, role
    snapshot = page.locator("main").aria_snapshot()
    unnamed_lines = [
        line
        for line in snapshot.splitlines()
        if line.strip(" -:") in ("button", "link", "checkbox", "img", "searchbox")
    ]
    assert unnamed_lines == []
    focusable = page.evaluate(
        "[...document.querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')]"
        ".filter(each => each.checkVisibility()).length"
    )
    seen = set()
    for _ in range(focusable + 3):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("(window.marks ??= new Map(), document.activeElement === document.body ? -1 : "
                               "(marks.has(document.activeElement) || marks.set(document.activeElement, marks.size), "
                               "marks.get(document.activeElement)))"))  # fmt: skip
    assert len(seen - {-1}) >= focusable


def test_plots_say_in_words_what_they_show(few_groups: Path, watched: Any) -> None:
    page = watched(few_groups, fragment=group(few_groups, "quickstart"))
    page.locator("canvas").nth(3).wait_for()
    labels = [each.get_attribute("aria-label") or "" for each in page.locator("canvas").all()]
    assert labels[0].startswith(
        "accuracy against latency p50 of 8 rows. On the front, the best latency p50 first: 4-layers-"
    )
    filled = page.evaluate(
        "(() => { const c = document.querySelector('canvas'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return d.some(each => each !== 0); })()"
    )
    assert filled


def test_costs_are_plotted_against_the_baseline_or_as_measured(few_groups: Path, watched: Any) -> None:
    page = watched(few_groups, fragment=group(few_groups, "quickstart"))
    page.locator("canvas").nth(3).wait_for()
    read = """() => {
      const chart = Chart.getChart(document.querySelector("canvas"));
      const points = chart.data.datasets.flatMap((dataset) => dataset.data);
      return [chart.options.scales.x.title.text, points.find((point) => point.row.name === "int8-dynamic"), points.length];
    }"""
    title, point, num_points = page.evaluate(read)
    assert title == "latency p50 (× baseline), less is better"
    assert point["xLow"] < point["x"] < point["xHigh"] < 1
    assert num_points == 8
    page.get_by_label("Costs").select_option("as measured")
    title, point, num_points = page.evaluate(read)
    assert title == "latency p50 (ms), less is better"
    assert point["x"] == pytest.approx(7.23, abs=0.01)
    assert num_points == 6, "two of them have no median that can be told"


def test_names_of_strangers_stay_text(hostile_index: Path, watched: Any) -> None:
    page = watched(hostile_index)
    page.wait_for_selector("#plots figcaption")
    shown = names(page) + page.locator("#unranked tbody th a").all_inner_texts()
    assert {each for each in HOSTILE if each.isprintable()} <= set(shown)
    assert page.title() == "<i>Title</i>"
    assert page.locator("main img, main script, main b, main i, [onerror], [onload]").count() == 0
    assert all(
        each.startswith("record.html#")
        for each in page.locator("tbody a").evaluate_all("a => a.map(x => x.getAttribute('href'))")
    )
    assert page.evaluate(
        "[...document.querySelectorAll('td, th')].every(each => !/[\\u202e\\u2028\\u001b]/.test(each.textContent))"
    )


def test_a_policy_that_forbids_all_else_is_in_force(index: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(index.as_uri())
    blocked = page.evaluate(
        """() => new Promise((done) => {
          document.addEventListener("securitypolicyviolation", (event) => done(event.violatedDirective));
          const script = document.createElement("script");
          script.textContent = "window.ran = 1";
          document.head.append(script);
        })"""
    )
    assert blocked.startswith("script-src")
    assert page.evaluate("window.ran") is None
    page.close()


@pytest.fixture(scope="module")
def large_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine machines, and seventy candidates on the one that was used last."""
    found = build.record("x", scores=(build.accuracy_after(20, 15),))
    records = [build.record()]
    for number in range(8):
        environment = build.environment(cpu_model=f"CPU {number}")
        records.append(build.record(environment=environment, run_id=f"2025112{number}T074513.926665Z"))
    records += [found.model_copy(update={"candidate": f"candidate-{number}"}) for number in range(70)]
    catalog = catalog_of([Located(Path(f"{at}.json"), record) for at, record in enumerate(records)])
    return write_site(board_of(catalog, "Many"), catalog, tmp_path_factory.mktemp("large"))


def test_many_rows_come_page_by_page_and_reading_goes_on_where_it_was(large_index: Path, watched: Any) -> None:
    page = watched(large_index)
    assert len(names(page)) == 60
    page.get_by_role("button", name="Show 11 more").focus()
    page.keyboard.press("Enter")
    assert len(names(page)) == 71
    assert page.evaluate("document.activeElement.textContent") == names(page)[60]
    assert page.locator("#pager button").count() == 0


def test_many_groups_are_chosen_from_a_list(large_index: Path, watched: Any) -> None:
    page = watched(large_index, width=390)
    picker = page.get_by_role("combobox", name="Group")
    assert picker.locator("option").count() == 9
    assert picker.evaluate("box => box.getBoundingClientRect().width") > 250
    picker.select_option(index=8)
    page.wait_for_url("**#group=*")
    page.get_by_text("1 of 1 rows").wait_for()
    assert "CPU 0" in page.locator("#group-subtitle").inner_text()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


def head(index: Path) -> dict[str, Any]:
    text = (index.parent / "data" / "board.js").read_text()
    found: dict[str, Any] = json.loads(text.removeprefix("compressbench.board=").removesuffix(";\n"))
    return found


@pytest.mark.parametrize("width", [1400, 1024])
@pytest.mark.parametrize("title", ["llama-125m-cpu-decoding", "all-methods-cpu", "shakespeare-cpu-decoding"])
def test_no_page_scrolls_sideways_and_the_picker_stays_on_it(index: Path, watched: Any, title: str, width: int) -> None:
    page = watched(index, fragment=group(index, title), width=width)
    page.wait_for_selector("canvas")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    picker = page.get_by_role("combobox", name="Group").bounding_box()
    assert picker["x"] + picker["width"] <= width


def test_the_first_group_is_the_one_of_the_most_ranked_rows(index: Path, watched: Any) -> None:
    board = head(index)
    page = watched(index)
    assert page.locator("#group-title").inner_text() == board["groups"][board["first"]]["title"] == "all-methods-cpu"
    assert page.get_by_role("combobox", name="Group").input_value() == str(board["first"])


def test_a_plot_without_a_point_has_no_axes_and_a_cost_that_nobody_asked_for_no_plot(index: Path, watched: Any) -> None:
    page = watched(index, fragment=group(index, "quickstart"))
    page.locator("canvas").nth(3).wait_for()
    page.get_by_role("searchbox").fill("no row is called so")
    page.get_by_text("No row that is shown has both numbers.").nth(3).wait_for()
    assert page.locator("canvas").count() == 0
    page = watched(index, fragment=group(index, "llama-125m-cpu-decoding"))
    page.locator("canvas").nth(2).wait_for()
    assert "energy" not in page.locator("#plots, #unranked thead").all_inner_texts()
    assert page.locator(".plot:visible").count() == 3


def test_costs_against_the_baseline_are_offered_only_where_a_plot_shows_them(index: Path, watched: Any) -> None:
    for title, is_offered in (("quickstart", True), ("llama-125m-cpu-decoding", False)):
        page = watched(index, fragment=group(index, title))
        page.locator("canvas").first.wait_for()
        assert page.locator("#axes-label").is_visible() == is_offered
        read = "Chart.getChart(document.querySelector('canvas')).options.scales.x.title.text"
        assert ("× baseline" in page.evaluate(read)) == is_offered


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("title", ["quickstart", "shakespeare-cpu-decoding", "all-methods-cpu", "minilm-cpu-runtimes"])
def test_what_to_deploy_is_named_in_every_plot_that_draws_it_beside_its_own_mark(
    index: Path, watched: Any, title: str, width: int
) -> None:
    page = watched(index, fragment=group(index, title), width=width)
    page.wait_for_timeout(800)
    page.locator("canvas").first.wait_for()
    name = page.locator("#answer .choice").inner_text()
    plots = page.evaluate("""(name) => [...document.querySelectorAll("canvas")].map((canvas) => {
      const chart = Chart.getChart(canvas);
      const points = chart.data.datasets.flatMap((dataset) => dataset.data);
      const marks = points.map((p) => [chart.scales.x.getPixelForValue(p.x), chart.scales.y.getPixelForValue(p.y)]);
      return {names: chart.names, marks, area: chart.chartArea, isDrawn: points.some((p) => p.row.name === name)};
    })""", name)  # fmt: skip
    drawn = [plot for plot in plots if plot["isDrawn"]]
    assert len(drawn) >= 3
    for plot in drawn:
        assert [each["name"] for each in plot["names"]].count(name) == 1
        for each in plot["names"]:
            box, area = each["box"], plot["area"]
            assert area["left"] <= box["left"]
            assert box["right"] <= area["right"] + 1
            nearest = min(distance(box, mark) for mark in plot["marks"])
            assert distance(box, each["mark"]) <= nearest + (10 if each["name"] == name else 0.01)


def distance(box: dict[str, float], mark: list[float]) -> float:
    """Of a point from a rectangle, in pixels."""
    x, y = mark
    aside = max(box["left"] - x, 0, x - box["right"])
    return float((aside**2 + max(box["top"] - y, 0, y - box["bottom"]) ** 2) ** 0.5)


def test_a_note_says_over_what_the_baseline_ranged(index: Path, watched: Any) -> None:
    page = watched(index, fragment=group(index, "quickstart"))
    assert page.locator("#notes").inner_text().startswith("The baseline was measured again beside every candidate: ")
    assert page.locator("#ranked tbody tr", has_text="bf16").first.inner_text().count("→") >= 1
