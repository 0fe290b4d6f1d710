"""Names to classes: nothing is imported before it is used, plug-ins add and never replace."""

from __future__ import annotations

import subprocess
import sys
import types
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressbench.core import registry
from compressbench.core.errors import MissingDependencyError, UnknownNameError
from compressbench.core.names import SAFE_NAME, did_you_mean, one_line
from compressbench.core.registry import Registry


def offer(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    """Pretend that installed packages have these entry points for methods."""
    group = "compressbench.methods"
    found = EntryPoints(EntryPoint(name.replace("_", "-"), value, group) for name, value in points.items())
    monkeypatch.setattr(registry, "entry_points", lambda **given: found.select(**given))


@pytest.mark.parametrize(
    ("word", "right"), [("int8-dinamic", "int8-dynamic"), ("magnitud", "magnitude"), ("depth_pruning", "depth-pruning")]
)
def test_an_unknown_name_is_told_the_nearest_right_one(word: str, right: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown method '{word}'. Did you mean '{right}'\\?"):
        registry.methods.resolve(word)


def test_a_name_that_is_near_to_none_is_told_all() -> None:
    with pytest.raises(UnknownNameError, match=r"Known: energy, .*, latency, memory, size\."):
        registry.meters.resolve("zzz")
    assert did_you_mean("x", []) == "None is known."


@pytest.mark.parametrize("table", [registry.methods, registry.runtimes, registry.tasks, registry.meters])
def test_every_name_in_a_table_resolves(table: Registry) -> None:
    for name in table.names():
        assert isinstance(table.resolve(name), type), name
        assert SAFE_NAME.fullmatch(name)


def test_a_plug_in_adds_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, fancy="fancy_plug_in:Fancy")
    module = types.ModuleType("fancy_plug_in")
    module.Fancy = int  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fancy_plug_in", module)
    table = Registry("method", {"cast": "compressbench.methods.quantization.cast:Cast"})
    assert table.names() == ["cast", "fancy"]
    assert table.resolve("fancy") is int
    assert table.is_builtin("cast")
    assert not table.is_builtin("fancy")


def test_a_plug_in_cannot_replace_a_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, cast="hostile:Cast")
    table = Registry("method", {"cast": "compressbench.methods.quantization.cast:Cast"})
    assert table.resolve("cast").__module__ == "compressbench.methods.quantization.cast"


@pytest.mark.parametrize("value", ["no_such_module_at_all:Thing", "json:NoSuchThing", "json"])
def test_a_broken_plug_in_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    offer(monkeypatch, broken=value)
    with pytest.raises(MissingDependencyError, match="the method 'broken' can't be imported from") as caught:
        Registry("method", {}).resolve("broken")
    assert value in str(caught.value)


def test_a_plug_in_whose_module_raises_anything_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "raising_plug_in.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(folder))
    offer(monkeypatch, raising="raising_plug_in:Thing")
    with pytest.raises(MissingDependencyError, match="RuntimeError: no licence"):
        Registry("method", {}).resolve("raising")


def test_nothing_is_imported_before_a_name_is_resolved() -> None:
    code = (
        "import sys; from compressbench.core import registry;"
        "[table.names() for table in (registry.methods, registry.tasks, registry.meters, registry.runtimes)];"
        "print([name for name in sys.modules if name.startswith('compressbench.') and '.core' not in name]);"
        "registry.methods.resolve('cast'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


@given(st.text(max_size=40))
def test_one_line_leaves_nothing_that_steers_a_terminal(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line) == len(text)
    assert one_line(line) == line


def test_one_line_takes_escape_sequences_and_turned_writing() -> None:
    assert one_line("a\x1b[31mb\u202ec\r\nd") == "a [31mb c  d"
