"""Nothing hostile or impossible is injected into what is printed, or ranked, whoever wrote the record."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hostile_corpus import CASES, INJECTING
from hostile_records import HONEST_FILE, HOSTILE_FILE, Case, honest_key, write_honest
from reading_verbs import EXIT_CODES, OF_ONE_FILE, POLICY, VERBS, Said, command_line, formats, say

from compressbench.report.catalog import Catalog, open_catalog

# what a browser, a Markdown viewer or TeX would run, as it stands in the corpus
ACTIVE = {
    "md": (
        r"(?<!\\)<(?:script|/script|svg|img|!)", r"(?<!\\)\]\((?:javascript|http://evil)", r"(?<!\\)!\[x\]", r"(?<!\\)`rm",
        r"http://evil", r"(?<!\\)&lt;script",
    ),
    "html": (
        r"<img src=x", r"<svg/onload", r"</script><script>alert", r"<!ENTITY", r"href=.?javascript:", r"\son\w+=.?alert",
    ),
    "latex": (r"\\input\{/etc", r"\\write18", r"a%b", r"(?<!\\)\$\{(?:alert|x)"),
}  # fmt: skip
BATCHES = [list(CASES)[at : at + 20] for at in range(0, len(CASES), 20)]
NOT_PRINTABLE = re.compile(r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per case: honest records and one hostile file."""
    root, found = tmp_path_factory.mktemp("hostile"), {}
    for at, (name, case) in enumerate(CASES.items()):
        found[name] = root / f"{at:03}"
        found[name].mkdir()
        write_honest(found[name])
        case.write(found[name])
    return found


def write_together(root: Path, names: Sequence[str]) -> Path:
    """Many cases in one folder, each hostile file in a folder of its own below it."""
    write_honest(root)
    for name in names:
        folder = root / f"case-{list(CASES).index(name):03}"
        folder.mkdir()
        CASES[name].write(folder)
    return root


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_together(tmp_path_factory.mktemp("everything"), INJECTING)


def places_of(folder: Path, tmp_path: Path) -> dict[str, Path]:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    at = {"file": folder / HOSTILE_FILE, "honest": folder / HONEST_FILE, "folder": folder}
    return {**at, "out": tmp_path / "out", "policy": policy}


def test_the_corpus_is_large_enough_to_mean_something() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_row_is_not_ranked_and_the_honest_one_is(folders: dict[str, Path], name: str) -> None:
    case, catalog = CASES[name], open_catalog([folders[name]], all_runs=True)
    assert {at.name for at in found_honest(catalog)} >= {HONEST_FILE}
    hostile = [at for at in range(len(catalog)) if catalog.path(at).name == HOSTILE_FILE]
    if case.said is None:
        assert not hostile
        assert not catalog.unreadable
    elif not case.said:
        assert catalog.row(hostile[0]).implausible == ()
        assert not catalog.unreadable
    else:
        faults = [reason for at in hostile for reason in catalog.contenders()[at].faults]
        reasons = [*faults, *(each.reason for each in catalog.unreadable)]
        assert any(case.said in reason for reason in reasons), reasons
        written = [
            *(each.reason for each in catalog.unreadable),
            *(r for at in hostile for r in catalog.row(at).implausible),
        ]
        assert all(reason.isprintable() and len(reason) < 1000 for reason in written)


def found_honest(catalog: Catalog) -> list[Path]:
    """The files of the candidates that may be ranked."""
    contenders = catalog.contenders()
    return [catalog.path(each.at) for each in contenders if not each.faults and not each.is_baseline]


@pytest.mark.parametrize("name", CASES)
def test_a_verb_of_one_record_shows_it_or_says_why_not(
    folders: dict[str, Path], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # a verb and format each in turn: every one of them is given a fourth of the corpus or more
    ways = [(verb, form) for verb in VERBS if verb in OF_ONE_FILE for form in formats(verb)]
    verb, form = ways[list(CASES).index(name) % len(ways)]
    said = say(capsys, *command_line(verb, form, places_of(folders[name], tmp_path)))
    assert_inert(said, form)
    if is_left_out(CASES[name]):
        assert (said.code, said.out) == (2, "")
        assert HOSTILE_FILE in said.err


@pytest.mark.parametrize("names", BATCHES, ids=lambda names: f"{names[0]} to {names[-1]}")
def test_a_verb_of_many_records_goes_on_without_it(
    names: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_together(tmp_path, names)
    left_out = [at.parent for at in folder.rglob(HOSTILE_FILE) if is_left_out(CASES[case_in(at.parent)])]
    for verb in (verb for verb in VERBS if verb not in OF_ONE_FILE):
        said = say(capsys, *command_line(verb, "json", places_of(folder, tmp_path), key=honest_key()))
        assert_inert(said, "json")
        assert not [(verb, case_in(at)) for at in left_out if f"{at}/" not in said.err]
        if verb in RANKED:
            # a forged baseline can stop a recommendation, and can't turn it
            assert said.code == 0 or "a second baseline" in names
            ranked = {(row["candidate"], row["role"]) for row in RANKED[verb](json.loads(said.out))}
            assert ranked <= {*HONEST, *((may_be_ranked(at), "candidate") for at in folder.iterdir())}
            assert HONEST[1] in ranked or verb == "recommend"


HONEST = (("baseline", "baseline"), ("int8", "candidate"))


def may_be_ranked(at: Path) -> str:
    """The name of a hostile candidate that is one only in its remarks."""
    is_sound = at.is_dir() and not CASES[case_in(at)].said
    return ("CON" if "Windows" in case_in(at) else at.name) if is_sound else "int8"


def chosen(data: Any) -> list[Any]:
    return [row for row in (data["deploy"], data["runner_up"], *data["tied"]) if row is not None]


RANKED: Mapping[str, Callable[[Any], list[Any]]] = {
    "pareto": lambda fronts: [row for front in fronts for row in front["rows"]],
    "leaderboard": lambda board: [row for group in board["groups"] for row in group["rows"] if row["ranks"]],
    "recommend": chosen,
}
"""By verb the rows that it ranks or chooses, out of its JSON."""


def case_in(folder: Path) -> str:
    return list(CASES)[int(folder.name.removeprefix("case-"))]


def is_left_out(case: Case) -> bool:
    """Whether the file can't be read at all, by the words of its reason."""
    return case.said in ("checksum", "not a valid record", "it isn't JSON", "can't be read")


@pytest.mark.parametrize(("verb", "form"), [(verb, form) for verb in VERBS for form in formats(verb)])
def test_nothing_of_all_of_it_together_is_run(
    everything: Path, verb: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if verb in OF_ONE_FILE:
        pytest.skip("it reads one file, and each was given to it")
    places = places_of(everything, tmp_path)
    # these two answer about one group or recipe only, the others about every row
    key = honest_key() if verb in ("recommend", "compare") else ""
    assert_inert(say(capsys, *command_line(verb, form, places, key)), form)
    for path in places["out"].rglob("*.html") if places["out"].is_dir() else ():
        assert_inactive(path.read_text(), "html")


def assert_inert(said: Said, form: str) -> None:
    """An exit code that is documented, no traceback, nothing that a terminal would obey, and what the format demands."""
    assert said.code in EXIT_CODES
    for text in (said.out, said.err):
        assert "Traceback" not in text
        assert not text.startswith("Usage:"), text
        assert not NOT_PRINTABLE.search(text), NOT_PRINTABLE.findall(text)[:3]
    # a verb that refused has printed nothing that could be parsed
    if said.out.strip():
        {"json": strictly, "csv": assert_no_formula, "md": assert_table}.get(form, lambda _: None)(said.out)
        assert_inactive(said.out, form)


def assert_inactive(text: str, form: str) -> None:
    for pattern in ACTIVE.get(form, ()):
        assert not re.search(pattern, text), pattern


def strictly(text: str) -> Any:
    """JSON without NaN, infinity and doubled keys."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return json.loads(text, parse_constant=refuse, object_pairs_hook=once)


def assert_no_formula(text: str) -> None:
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows for cell in row):
        assert not cell.lstrip().startswith(("=", "+", "-", "@")) or is_number(cell), cell


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def assert_table(text: str) -> None:
    """Every line of a table has as many cells as its head."""
    for table in tables_in(text):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1, table[0]


def tables_in(text: str) -> Iterator[list[str]]:
    for part in text.split("\n\n"):
        lines = [line for line in part.splitlines() if line.startswith("|")]
        if lines:
            yield lines
