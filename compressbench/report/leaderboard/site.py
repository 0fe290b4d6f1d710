"""The leaderboard as a folder of static files: opens from a disk, loads nothing from anywhere else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from compressbench.core.names import one_line
from compressbench.records.files import cannot_write, make_folder
from compressbench.report.catalog import Catalog, older_words
from compressbench.report.flips import flips
from compressbench.report.leaderboard.board import Board
from compressbench.report.leaderboard.site_data import ascii_json, date_of, group_data, index_data, json_of, script_of
from compressbench.report.leaderboard.text_forms import to_csv, to_json, to_markdown

RECORDS_PER_FILE = 8
MOST_FILES = 4096
MOST_IN_MARKDOWN = 1000
MOST_WITH_SAMPLES = 2000
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'"
)
_ROOM = "compressbench.report.leaderboard"
_MOST_IN_MEMORY = 100_000_000


def write_site(board: Board, catalog: Catalog, out: Path) -> Path:
    """Write the site of a board into a folder; its first page. Raises OutputError if the folder can't be written.

    Files of the same names are replaced, data of an earlier site is removed, and the first page comes last.
    """
    make_folder(out)
    try:
        _remove_old_data(out / "data")
        _write_assets(out / "assets")
        _write_data(board, catalog, out / "data")
        for name, text in (
            ("md", to_markdown(board, MOST_IN_MARKDOWN)),
            ("csv", to_csv(board)),
            ("json", to_json(board)),
        ):
            _write(out / f"table.{name}", text)
        for name, text in _pages(board):
            _write(out / name, text)
    except OSError as error:
        raise cannot_write(out, error) from error
    return out / "index.html"


def num_buckets(num_rows: int) -> int:
    """Into how many files the records are spread, so that a page reads few of them and a folder holds not too many."""
    return min(MOST_FILES, max(1, math.ceil(num_rows / RECORDS_PER_FILE)))


def bucket_of(row_id: str, count: int) -> int:
    """FNV-1a of 32 bits, modulo the number of files; record.js computes the same."""
    found = 2166136261
    for byte in row_id.encode():
        found = (found ^ byte) * 16777619 & 0xFFFFFFFF
    return found % count


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _remove_old_data(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for pattern in ("group-*.js", "records-*.js"):
        for path in folder.glob(pattern):
            path.unlink()


def _write_assets(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for asset in files(_ROOM).joinpath("static").iterdir():
        if asset.is_file():
            (folder / asset.name).write_bytes(asset.read_bytes())


def _write_data(board: Board, catalog: Catalog, folder: Path) -> None:
    _write(folder / "board.js", f"compressbench.board={json_of(index_data(board))};\n")
    for index, group in enumerate(board.groups):
        _write(folder / f"group-{index}.js", script_of("compressbench.addGroup", index, group_data(group)))
    for bucket, lines in _records(board, catalog):
        with (folder / f"records-{bucket}.js").open("a", encoding="utf-8", newline="\n") as stream:
            stream.writelines(lines)


def _records(board: Board, catalog: Catalog) -> Iterator[tuple[int, list[str]]]:
    """The records of each file, of a large board in several turns: never more than a part of them is in memory, and texts
    are read in the order in which an index has them.
    """
    count = num_buckets(board.num_rows)
    found = enumerate(place for group in board.groups for place in group.places)
    in_order = sorted(found, key=lambda each: each[1].contender.at)
    places = [place.contender.at for _, place in in_order]
    lines = zip(in_order, catalog.texts("row", places), _details(catalog, places), strict=True)
    buckets: dict[int, list[tuple[int, str]]] = {}
    size = 0
    for (number, place), row, detail in lines:
        line = _record(place.id, row, detail)
        buckets.setdefault(bucket_of(place.id, count), []).append((number, line))
        size += len(line)
        if size > _MOST_IN_MEMORY:
            yield from _in_board_order(buckets)
            buckets, size = {}, 0
    yield from _in_board_order(buckets)


def _in_board_order(buckets: Mapping[int, list[tuple[int, str]]]) -> Iterator[tuple[int, list[str]]]:
    return ((bucket, [line for _, line in sorted(lines)]) for bucket, lines in buckets.items())


def _details(catalog: Catalog, places: Sequence[int]) -> Iterator[str]:
    """With the samples that flipped, on a board that is small enough to read them all."""
    for at, text in zip(places, catalog.details(places), strict=True):
        if len(places) > MOST_WITH_SAMPLES:
            yield text
        else:
            yield json_of({**json.loads(text), "flips": flips(catalog.path(at), catalog.record(at))})


def _record(row_id: str, row: str, detail: str) -> str:
    # a line end in JSON stands between its parts, never in a text
    compact = "".join(line.lstrip(" ") for line in row.split("\n"))
    return (
        f'compressbench.addRecord({json_of(row_id)},{{"row":{ascii_json(compact)},"detail":{ascii_json(detail)}}});\n'
    )


def _pages(board: Board) -> Sequence[tuple[str, str]]:
    """The record's page first: the first page links to it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(_ROOM), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    context = {
        "title": one_line(board.title),
        "policy": POLICY,
        "num_buckets": num_buckets(board.num_rows),
        "num_rows": board.num_rows,
        "num_groups": len(board.groups),
        "newest": max((date_of(p.contender.run_id) for group in board.groups for p in group.places), default=""),
        "older": older_words(board.num_older),
        "unreadable": [one_line(reason) for reason in board.unreadable],
    }
    names = [name for name in ("record.html", "index.html") if f"{name}.jinja" in environment.list_templates()]
    return [(name, environment.get_template(f"{name}.jinja").render(context) + "\n") for name in names]
