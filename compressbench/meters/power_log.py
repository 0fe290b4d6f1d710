"""The growing log of a power analyser or PDU: rows of text, read as data and believed only where they are in order.

A row that can't be used (no number, no time zone, out of order) is a fault at its place between two samples, and voids
the windows across it.
"""

from __future__ import annotations

import csv
import os
import re
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal, NamedTuple

from compressbench.core.errors import MeterError

TimeFormat = Literal["iso8601", "unix_s", "unix_ms", "ptdaemon"]
MAX_BYTES = 64 * 2**20
MAX_LINE_BYTES = 2**16
MAX_AHEAD_S = 60.0
# float() would take "nan", "1_0", " 1" and "١"
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?")
_PTDAEMON_TIME = "%m-%d-%Y %H:%M:%S.%f"


class Columns(NamedTuple):
    """Where time and value stand in a row. PTDaemon has no header but a name before every cell: Time,...,Watts,..."""

    time: str
    value: str
    time_format: TimeFormat
    delimiter: str = ","


class PowerLog:
    """Times (seconds since 1970 on our clock) and values of the file at `path`, as far as it has been read.

    `faults` are (number of samples before it, reason). `resolution` is the last decimal that the log writes.
    """

    def __init__(self, path: Path, columns: Columns, clock_offset_s: float, now_s: Callable[[], float]) -> None:
        """`clock_offset_s` is by how much the log's clock is ahead of ours, which `now_s` reads."""
        self._path, self._columns, self._clock_offset_s, self._now_s = path, columns, clock_offset_s, now_s
        self.times, self.values = array("d"), array("d")
        self.faults: list[tuple[int, str]] = []
        self.resolution = 1.0
        self._inode, self._offset, self._rest = -1, 0, b""
        self._places: tuple[int, int] | None = None

    def refresh(self) -> None:
        """Read what has been appended. Raises MeterError if it is no readable regular file, or has no such columns."""
        for line in self._new_lines():
            cells = self._cells(line)
            if not cells:
                continue
            if self._places is None and self._columns.time_format != "ptdaemon":
                self._places = self._find_columns(cells)
            else:
                self._take(cells)

    def _new_lines(self) -> Iterator[str]:
        new = self._new_bytes()  # which forgets the rest of a file that has been replaced
        *lines, self._rest = (self._rest + new).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise MeterError("the power log has no lines", where=str(self._path), got=f"{len(self._rest)} bytes of one")
        for line in lines:
            yield line.decode("utf-8-sig", "replace").strip("\r\ufeff")

    def _new_bytes(self) -> bytes:
        try:
            # a pipe would block without O_NONBLOCK, before it can be refused
            file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if self._inode >= 0:
                return b""  # being rotated, or gone: the windows that it doesn't reach are void
            raise MeterError("there is no power log", where=str(self._path), do="Start the meter's logging.") from error
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            return self._read(file)
        except OSError as error:
            raise self._unreadable(error) from error
        finally:
            os.close(file)

    def _unreadable(self, error: OSError) -> MeterError:
        return MeterError("the power log can't be read", where=str(self._path), got=str(error.strerror))

    def _read(self, file: int) -> bytes:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise MeterError("the power log is no regular file", where=str(self._path))
        if found.st_size > MAX_BYTES:
            got = f"{found.st_size} bytes"
            raise MeterError("the power log is too large", where=str(self._path), got=got, do="Begin a new one.")
        if found.st_ino != self._inode or found.st_size < self._offset:
            # a new file, with a header of its own
            self._inode, self._offset, self._rest, self._places = found.st_ino, 0, b"", None
        data = os.pread(file, found.st_size - self._offset, self._offset)
        self._offset += len(data)
        return data

    def _cells(self, line: str) -> list[str]:
        try:
            cells = next(csv.reader([line], delimiter=self._columns.delimiter), [])
        except csv.Error:
            cells = [line]
        return [] if line.startswith("#") else [cell.strip() for cell in cells]

    def _find_columns(self, header: Sequence[str]) -> tuple[int, int]:
        missing = [name for name in (self._columns.time, self._columns.value) if name not in header]
        if missing:
            got = ", ".join(name[:40] for name in header[:20])
            raise MeterError(f"the power log has no column '{missing[0]}'", where=str(self._path), got=got)
        return header.index(self._columns.time), header.index(self._columns.value)

    def _take(self, cells: Sequence[str]) -> None:
        try:
            time_text, value_text = self._pick(cells)
            time_s = _seconds(time_text, self._columns.time_format) - self._clock_offset_s
            value = _number(value_text)
            self._check_order(time_s, time_text)
        except ValueError as error:
            self.faults.append((len(self.times), str(error)))
        else:
            self.times.append(time_s)
            self.values.append(value)
            self.resolution = min(self.resolution, _last_decimal(value_text))

    def _pick(self, cells: Sequence[str]) -> tuple[str, str]:
        if self._places is None:
            named = dict(zip(cells[::2], cells[1::2], strict=False))
            if not {self._columns.time, self._columns.value} <= named.keys():
                raise ValueError(f"a row without {self._columns.time} and {self._columns.value}: {cells[0][:40]!r}")
            return named[self._columns.time], named[self._columns.value]
        if len(cells) <= max(self._places):
            raise ValueError(f"a row of {len(cells)} cells")
        return cells[self._places[0]], cells[self._places[1]]

    def _check_order(self, time_s: float, text: str) -> None:
        if time_s > self._now_s() + MAX_AHEAD_S:
            raise ValueError(f"the time {text[:40]!r} is ahead of now: a wrong clock, zone or unit")
        if self.times and time_s <= self.times[-1]:
            raise ValueError(f"the time {text[:40]!r} is not later than the one before it")


def _seconds(text: str, time_format: TimeFormat) -> float:
    """Seconds since 1970 in UTC. Raises ValueError."""
    if time_format in ("unix_s", "unix_ms"):
        return _number(text) * (1.0 if time_format == "unix_s" else 1e-3)
    try:
        if time_format == "ptdaemon":
            return datetime.strptime(text, _PTDAEMON_TIME).replace(tzinfo=UTC).timestamp()
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no time: {text[:40]!r}") from error
    if moment.tzinfo is None:
        raise ValueError(f"a time without a zone: {text[:40]!r}")
    return moment.timestamp()


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"no number: {text[:40]!r}")
    value = float(text)
    if abs(value) > 1e300:
        raise ValueError(f"no finite number: {text[:40]!r}")
    return value


def _last_decimal(text: str) -> float:
    exponent = Decimal(text).as_tuple().exponent
    return 10.0**exponent if isinstance(exponent, int) else 1.0
