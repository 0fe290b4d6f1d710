"""What must not rot: the README's file map, the shipped schemas, the size of the rooms, and what is imported when.

`python tests/test_house.py` writes the map, the schemas and the README's table anew.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "compressbench"
README = ROOT / "README.md"
RESULTS = ROOT / "results"
SITE = RESULTS / "site"
TABLE_BEGIN, TABLE_END = "<!-- quickstart table: begin -->\n", "<!-- quickstart table: end -->"
MAP_BEGIN, MAP_END = "<!-- file map: begin -->\n", "<!-- file map: end -->"
SCHEMAS = {
    "recipe.schema.json": PACKAGE / "recipe" / "recipe.schema.json",
    "record.schema.json": PACKAGE / "records" / "record.schema.json",
}
LIGHT = "compressbench compressbench.plan compressbench.report.rows compressbench.cli.main compressbench.records.store"
VERBS = (
    "run",
    "validate",
    "plan",
    "list",
    "show",
    "audit",
    "export",
    "parity",
    "table",
    "compare",
    "pareto",
    "recommend",
    "gate",
    "leaderboard",
    "carbon",
    "breakeven",
    "fleet",
    "frontier",
    "statement",
    "think",
    "load",
    "diff",
    "doctor",
)


def file_map() -> str:
    """Every module of the package with the first sentence of its docstring."""
    lines = []
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent != PACKAGE, str(path))):
        summary = summary_of(path)
        if summary:
            lines.append(f"- `{path.relative_to(ROOT)}` {summary}\n")
    return "".join(lines)


def summary_of(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[.?])\s", first)[0]


def schemas() -> dict[str, str]:
    from compressbench.recipe.schema import recipe_json_schema
    from compressbench.records.record import Record

    found = {
        "recipe.schema.json": recipe_json_schema(),
        "record.schema.json": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **Record.model_json_schema(mode="serialization"),
        },
    }
    return {name: json.dumps(schema, indent=1, ensure_ascii=False) + "\n" for name, schema in found.items()}


def test_the_readme_maps_every_file() -> None:
    text = README.read_text()
    written = text.partition(MAP_BEGIN)[2].partition(MAP_END)[0]
    assert written == file_map(), "run python tests/test_house.py"


def test_the_readme_shows_the_table_that_the_demo_left_in_results() -> None:
    written = README.read_text().partition(TABLE_BEGIN)[2].partition(TABLE_END)[0]
    assert written == (RESULTS / "quickstart" / "table.md").read_text(), "run python tests/test_house.py"


@pytest.mark.parametrize(
    "folder",
    sorted(path.parent for path in RESULTS.glob("*/table.md") if path.parent != SITE),
    ids=lambda path: path.name,
)
def test_the_tables_in_results_are_drawn_from_the_records_beside_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from compressbench.cli.main import call

    for form in ("md", "csv", "json"):
        assert call(["table", str(folder), "--format", form, "--out", str(tmp_path / "table")]) == 0
        assert (folder / f"table.{form}").read_text() == (tmp_path / "table").read_text()
    assert not capsys.readouterr().err


def test_the_site_in_results_is_drawn_from_the_records(tmp_path: Path) -> None:
    from compressbench.cli.main import call

    assert call(["leaderboard", str(RESULTS), "--out", str(tmp_path)]) == 0
    drawn = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    there = {path.relative_to(SITE): path.read_bytes() for path in SITE.rglob("*") if path.is_file()}
    assert drawn.keys() == there.keys(), "run make leaderboard"
    assert not [str(path) for path in drawn if drawn[path] != there[path]], "run make leaderboard"


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in PACKAGE.rglob("*.py") if path.read_text().strip() and not summary_of(path)]
    assert not silent


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_shipped_json_schemas_are_those_of_the_code(name: str) -> None:
    assert SCHEMAS[name].read_text() == schemas()[name], "run python tests/test_house.py"


def test_a_word_in_a_recipe_is_a_file_name() -> None:
    from compressbench.core import registry

    for table in (registry.methods, registry.tasks, registry.meters):
        for name in table.names():
            if table.is_builtin(name):
                assert table.table[name].partition(":")[0].rpartition(".")[2] == name.replace("-", "_")


def test_a_verb_is_a_file_name() -> None:
    files = {path.stem for path in (PACKAGE / "cli").glob("*.py")}
    # `list` would hide the built-in from everything that imports it
    assert {"listing" if verb == "list" else verb for verb in VERBS} <= files


def test_nothing_heavy_is_imported_until_something_runs() -> None:
    script = (
        f"import sys; [__import__(name) for name in '{LIGHT}'.split()];"
        "heavy = {'torch', 'transformers', 'datasets', 'codecarbon', 'pyarrow', 'pandas'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_files_and_functions_stay_small() -> None:
    long_files = {path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 300}
    long_functions = [
        f"{path.name}:{node.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 60
    ]
    assert not long_files
    assert not long_functions


def test_run_stays_on_one_page() -> None:
    assert len((PACKAGE / "run.py").read_text().splitlines()) <= 60


def test_recipes_are_short_and_valid() -> None:
    from compressbench.recipe.load import load_recipe

    for path in (ROOT / "recipes").glob("*.yaml"):
        assert len(path.read_text().splitlines()) <= 40
        assert load_recipe(path).recipe.candidates


def test_the_recipe_in_the_readme_is_one() -> None:
    import yaml

    from compressbench.recipe.load import parse_recipe

    text = README.read_text().partition("```yaml\n")[2].partition("```")[0]
    assert len(parse_recipe(yaml.safe_load(text)).recipe.candidates) == 3


def test_the_makefile_has_few_targets() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"demo", "test", "check"} <= set(targets)
    assert len(targets) <= 10


def write() -> None:
    """Write the map, the schemas and the README's table as code and results have them."""
    text = _between(README.read_text(), MAP_BEGIN, MAP_END, file_map())
    table = (RESULTS / "quickstart" / "table.md").read_text()
    README.write_text(_between(text, TABLE_BEGIN, TABLE_END, table))
    for name, text in schemas().items():
        SCHEMAS[name].write_text(text)


def _between(text: str, begin: str, end: str, new: str) -> str:
    head, _, rest = text.partition(begin)
    return head + begin + new + end + rest.partition(end)[2]


if __name__ == "__main__":
    write()
