"""Make `embedded:shakespeare-choices` and `embedded:shakespeare-last-words` from the test split of TinyShakespeare.

    python training/shakespeare_questions.py [--out FOLDER]

Choices: in which of four orders do the words of the next line stand? The first word and the end stay in place. Last
words: passages of ten lines that end in a word of four letters or more. No model chose anything here.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import re

import pyarrow
import pyarrow.parquet

from compressbench.data.text import load_text

SEED = 0
NUM_CONTEXT_LINES = 6
NUM_PASSAGE_LINES = 10
MAX_ROWS = 1000
_NAME = re.compile(r"[A-Z][A-Za-z ]*:")
_WORDS = re.compile(r"(?P<words>[^,.;:!?]+)(?P<end>[,.;:!?]*)")
_LAST_WORD = re.compile(r"(?P<before>.*\s)(?P<word>[a-z]{4,})[.,;:!?]*", re.DOTALL)


def spoken(lines: list[str]) -> list[int]:
    """Numbers of the lines that somebody says, of at least 20 characters."""
    return [number for number, line in enumerate(lines) if len(line) >= 20 and not _NAME.fullmatch(line)]


def choices(lines: list[str]) -> list[dict[str, object]]:
    """The line as it is, and three other orders of its words; lines without punctuation inside, of five different words."""
    chance = random.Random(SEED)
    rows: list[dict[str, object]] = []
    for number in spoken(lines):
        found = _WORDS.fullmatch(lines[number])
        words = found["words"].split() if found else []
        if not found or number < NUM_CONTEXT_LINES or len(set(words)) < 5:
            continue
        options = [lines[number]]
        while len(options) < 4:
            other = " ".join([words[0], *chance.sample(words[1:], len(words) - 1)]) + found["end"]
            options += [other] if other not in options else []
        chance.shuffle(options)
        context = "\n".join(lines[number - NUM_CONTEXT_LINES : number]) + "\n"
        rows.append({"context": context, "choices": options, "label": options.index(lines[number])})
    return rows[:: max(1, len(rows) // MAX_ROWS)][:MAX_ROWS]


def last_words(lines: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number in spoken(lines):
        passage = "\n".join(lines[max(0, number - NUM_PASSAGE_LINES + 1) : number + 1])
        found = _LAST_WORD.fullmatch(passage)
        if found and number >= NUM_PASSAGE_LINES:
            rows.append({"text": found["before"] + found["word"]})
    return rows[:: max(1, len(rows) // MAX_ROWS)][:MAX_ROWS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    place = pathlib.Path(__file__).parent.parent / "compressbench" / "data" / "embedded"
    parser.add_argument("--out", type=pathlib.Path, default=place)
    out = parser.parse_args().out
    lines = load_text("embedded:tinyshakespeare", split="test").text.split("\n")
    for name, rows in {"shakespeare-choices": choices(lines), "shakespeare-last-words": last_words(lines)}.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out / name / "test.parquet", compression="zstd")
        print(f"{name}: {len(rows)} rows, {(out / name / 'test.parquet').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
