"""How large a recipe may be."""

from __future__ import annotations

from dataclasses import dataclass

MAX_BYTES = 1_048_576
MAX_NODES = 10_000
MAX_CHARACTERS = 1_048_576
MAX_DEPTH = 32
MAX_KEY_LENGTH = 128
MAX_INTEGER = 2**63 - 1


class TooLargeError(Exception):
    """A recipe that grows beyond the limits, e.g. because aliases multiply; reading stops at once."""

    def __init__(self, what: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(what)


@dataclass
class Budget:
    """How many values and characters a recipe may have, each alias counted as often as it is used."""

    num_nodes: int = 0
    num_characters: int = 0

    def spend(self, characters: int = 0) -> None:
        self.num_nodes += 1
        self.num_characters += characters
        if self.num_nodes > MAX_NODES:
            raise TooLargeError(f"more than {MAX_NODES:,} keys and values, each alias counted where it is used")
        if self.num_characters > MAX_CHARACTERS:
            raise TooLargeError(f"more than {MAX_CHARACTERS:,} characters, each alias counted where it is used")
