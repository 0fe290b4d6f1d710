"""The one tree of errors.

CompressbenchError                1   anything that compressbench itself raises
├── InputError                    2   what was given can't be used
│   ├── RecipeError               2   a recipe (file, key, value, name)
│   ├── UnknownNameError          2   a name that no table and no plug-in has
│   ├── ModelError                2   a model that can't be found, trusted or matched with its task
│   ├── DataError                 2   a data set, split, column or file
│   ├── OutputError               2   a folder or file that can't be written
│   ├── RecordError               2   a record that can't be read
│   └── MissingDependencyError    2   a library that one method, runtime or meter needs
├── CellError                     1   one baseline or candidate failed; the others go on
│   ├── NotFiniteError            1   a model whose answers are no numbers
│   └── UnsupportedError          1   a method, model and device that don't go together
├── MeterError                    1   an instrument that can't be read
├── MissingMeasurementError       4   a required number is absent
├── NotComparableError            5   records that can't stand in one ranking
├── NoCandidateError              6   no candidate that meets what was asked
└── StoppedError                130   somebody pressed Ctrl-C

The number is the exit code of the command line.
"""

from __future__ import annotations

from compressbench.core.names import one_line


class CompressbenchError(Exception):
    """An error that says what is wrong, where, what was got and what to do.

    `where` is a file, a key path or a name; `got` the offending value; `do` the next step for the reader.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", got: str = "", do: str = "") -> None:
        self.what, self.where, self.got, self.do = what, where, got, do
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        if self.got:
            head += f" (got {self.got})"
        text = f"{head}. {self.do}" if self.do else head
        # names out of records and recipes may be anything, and errors are printed
        return text if text.isprintable() else "\n".join(map(one_line, text.split("\n")))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.got, self.do))


def in_words(error: BaseException) -> str:
    """What an error says. One that isn't of this tree says its type too: its text may be empty, or mean nothing alone."""
    if isinstance(error, CompressbenchError):
        return str(error)
    text, kind = str(error), type(error).__name__
    return one_line(f"{kind}: {text}" if text else kind)


def _rebuild(kind: type[CompressbenchError], what: str, where: str, got: str, do: str) -> CompressbenchError:
    return kind(what, where=where, got=got, do=do)


class InputError(CompressbenchError):
    exit_code = 2


class RecipeError(InputError):
    pass


class UnknownNameError(InputError):
    pass


class ModelError(InputError):
    pass


class DataError(InputError):
    pass


class OutputError(InputError):
    pass


class RecordError(InputError):
    pass


class MissingDependencyError(InputError):
    pass


class CellError(CompressbenchError):
    exit_code = 1


class NotFiniteError(CellError):
    pass


class UnsupportedError(CellError):
    pass


class MeterError(CompressbenchError):
    exit_code = 1


class MissingMeasurementError(CompressbenchError):
    exit_code = 4


class NotComparableError(CompressbenchError):
    exit_code = 5


class NoCandidateError(CompressbenchError):
    exit_code = 6


class StoppedError(CompressbenchError):
    exit_code = 130
