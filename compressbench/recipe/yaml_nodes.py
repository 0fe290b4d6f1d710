"""YAML text to plain values that remember their lines.

Safe by construction: nothing but text, numbers, true, false, null, lists and mappings is ever made, and the sizes are
capped before anything is built.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.reader import ReaderError

from compressbench.recipe.limits import MAX_DEPTH, MAX_KEY_LENGTH, Budget, TooLargeError
from compressbench.recipe.problems import Problem, join, shown
from compressbench.recipe.yaml_compose import MERGE, TAG, compose, scalar_value

_ALLOWED = "Only text, numbers, true, false, null, lists and mappings are allowed."
_MAX_TOLD = 200
Pairs = dict[Hashable, tuple[yaml.Node, yaml.Node]]


def read_yaml(text: str) -> tuple[Any, dict[str, int], list[Problem]]:
    """The value of a YAML document, the line of every key path in it ("" is the top), and what is wrong with it.

    With problems the value is incomplete. An empty document is None.
    What stands behind an alias has the line of its anchor.
    """
    try:
        root = compose(text)
        if root is None:
            return None, {}, []
        return _Reader(lines={"": _line(root)}).read(root)
    except TooLargeError as error:
        problem = Problem("", "the recipe is too large", got=str(error), line=error.line)
    except yaml.MarkedYAMLError as error:
        problem = _broken(error)
    except ReaderError as error:
        problem = _forbidden_character(text, error.position)
    except (ValueError, OverflowError) as error:
        problem = Problem("", "not YAML: an impossible escape or number", got=str(error))
    return None, {}, [problem]


def _broken(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    told = ", ".join(part for part in (error.context, error.problem) if part)[:_MAX_TOLD]
    if mark is None:
        return Problem("", f"not YAML: {told}")
    return Problem("", f"not YAML in column {mark.column + 1}: {told}", line=mark.line + 1)


def _forbidden_character(text: str, at: int) -> Problem:
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return Problem("", f"not YAML in column {column}: a forbidden character", got=shown(text[at : at + 1]), line=line)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


@dataclass
class _Reader:
    """Walks nodes; an alias is walked as often as it is used, and paid for each time."""

    lines: dict[str, int]
    problems: list[Problem] = field(default_factory=list)
    budget: Budget = field(default_factory=Budget)
    entered: list[yaml.Node] = field(default_factory=list)

    def read(self, root: yaml.Node) -> tuple[Any, dict[str, int], list[Problem]]:
        try:
            return self.value(root, ""), self.lines, self.problems
        except TooLargeError as error:
            # what was being walked is still entered
            raise TooLargeError(str(error), _line([root, *self.entered][-1])) from None

    def value(self, node: yaml.Node, key: str) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, key)
        with self.entering(node, key) as is_fine:
            if not is_fine:
                return None
            return self.mapping(node, key) if isinstance(node, yaml.MappingNode) else self.sequence(node, key)

    @contextmanager
    def entering(self, node: yaml.Node, key: str) -> Iterator[bool]:
        """A list or mapping, as long as it is walked; False if it must not be."""
        self.budget.spend()
        num_problems = len(self.problems)
        if node.tag not in (TAG + "map", TAG + "seq"):
            self.refuse(node, key, "a tag that recipes don't allow", shown(node.tag), _ALLOWED)
        elif any(node is each for each in self.entered):
            self.refuse(node, key, "an anchor must not refer to itself")
        elif len(self.entered) >= MAX_DEPTH:
            self.refuse(node, key, f"must not be nested deeper than {MAX_DEPTH} levels")
        self.entered.append(node)
        yield len(self.problems) == num_problems
        self.entered.pop()

    def sequence(self, node: yaml.Node, key: str) -> list[Any]:
        self.lines |= {join(key, at): _line(item) for at, item in enumerate(node.value)}
        return [self.value(item, join(key, at)) for at, item in enumerate(node.value)]

    def mapping(self, node: yaml.Node, key: str) -> dict[Hashable, Any]:
        values = {}
        for name, (name_node, value_node) in self.pairs(node, key).items():
            here = join(key, name)
            self.lines[here] = _line(name_node)
            values[name] = self.value(value_node, here)
        return values

    def pairs(self, node: yaml.Node, key: str) -> Pairs:
        """The keys of a mapping; its own win over those that `<<` merges in."""
        own: Pairs = {}
        merged: Pairs = {}
        for name_node, value_node in node.value:
            name = self.name(name_node, key)
            if name in own:
                self.refuse(name_node, join(key, name), "duplicate key", do="Keep one of them.")
            own[name] = (name_node, value_node)
            if name_node.tag == MERGE:
                merged = self.merged(value_node, key)
        return merged | {name: pair for name, pair in own.items() if pair[0].tag != MERGE}

    def merged(self, node: yaml.Node, key: str) -> Pairs:
        """The keys that `<<` brings; the first mapping of a list wins (https://yaml.org/type/merge.html)."""
        found: Pairs = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            self.budget.spend()
            if not isinstance(source, yaml.MappingNode):
                self.refuse(source, key, "'<<' must be followed by a mapping or a list of mappings")
                continue
            with self.entering(source, key) as is_fine:
                for name, pair in self.pairs(source, key).items() if is_fine else ():
                    found.setdefault(name, pair)
        return found

    def name(self, node: yaml.Node, key: str) -> Hashable:
        if isinstance(node, yaml.ScalarNode) and len(node.value) <= MAX_KEY_LENGTH:
            name: Hashable = self.scalar(node, key)
            return name
        wrong = f"must be text of at most {MAX_KEY_LENGTH} characters"
        self.refuse(
            node, key, f"a key {wrong}", "a longer one" if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        )
        return id(node)

    def scalar(self, node: yaml.ScalarNode, key: str) -> Any:
        self.budget.spend(len(node.value))
        try:
            return scalar_value(node.tag, node.value)
        except KeyError:
            self.refuse(node, key, "a tag that recipes don't allow", shown(node.tag), _ALLOWED)
        except ValueError:
            self.refuse(node, key, f"can't be read as {node.tag.removeprefix(TAG)}", shown(node.value))
        return None

    def refuse(self, node: yaml.Node, key: str, what: str, got: str = "", do: str = "") -> None:
        self.problems.append(Problem(key, what, got, do, line=_line(node)))
