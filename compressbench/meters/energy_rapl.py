"""Energy of the processor packages from RAPL's counters (Linux powercap, microjoules, a tick of about 1 ms).

A window is the difference of two readings, taken when it is marked. The counter is up to a tick behind at both, which is
nearly all that is uncertain about the difference: power x tick / sqrt(6). A thread reads twice in 25 ticks besides, which
tells the power around both ends, and whether the counter stood still or became slower (compressbench.meters.powercap_log);
and near a wrap so that every wrap is seen and a reset isn't taken for one (compressbench.meters.unwrapped).

RAPL is a model in the silicon. It follows the wall plug well (Khan et al. 2018, doi 10.1145/3177754), but its absolute
gain is unknown (Fahad et al. 2019, doi 10.3390/en12112204: average errors up to 73 %), and DRAM can have an offset
(Desrochers et al. 2016, doi 10.1145/2989081.2989088). The gain cancels in ratios on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from compressbench.core.errors import MeterError
from compressbench.core.protocols import Instrument, Provenance, Window
from compressbench.core.spec import Spec
from compressbench.meters.powercap import Domain, Machine, Reading, Role, close_domains, open_domains, read
from compressbench.meters.powercap_log import J_PER_UJ, LONGEST_POLL_S, MAX_DOMAIN_W, Fed, PowercapLog, stillness
from compressbench.meters.powercap_probe import Probed, probe
from compressbench.meters.unwrapped import Span

MIN_TICKS = 10
TICKS_PER_WINDOW = 100  # an unaligned window is then uncertain by 0.4 % (standard)
MAX_DOUBT = 0.5
COUNTS_OF_RANGE = 2**32

_VALUES: dict[Role, str] = {"package": "energy_j", "dram": "dram_energy_j"}
_BOUNDARIES: dict[Role, str] = {"package": "cpu package (whole machine)", "dram": "memory (whole machine)"}
_GAINS: dict[Role, str] = {
    "package": "the gain of RAPL is unknown: it follows the wall plug (Khan 2018), average errors up to 73 % (Fahad 2019)",
    "dram": "the gain of RAPL is unknown, and its DRAM domain can have an offset (Desrochers 2016)",
}


class EnergyRapl(Spec):
    """Energy of the processor packages of the whole machine, and of its memory where that is counted, by RAPL."""

    scope: ClassVar[str] = "block"

    def open(self, device: str) -> Instrument:
        """Raises MeterError with the reason if `device` isn't the CPU, or its counters can't be read."""
        if device.partition(":")[0] != "cpu":
            raise MeterError("RAPL counts the energy of processor packages, not of this device", got=device)
        return RaplEnergy()


class RaplEnergy:
    """Joules of all packages ("energy_j") and of DRAM ("dram_energy_j") in windows of time. Opening takes about 25 ms."""

    def __init__(self, machine: Machine | None = None) -> None:
        """Raises MeterError if there is no powercap tree, no permission, or a package's counter stands still."""
        self._machine = machine or Machine()
        self._files = open_domains(self._machine)
        try:
            self.probed = probe(self._machine, self._files, MAX_DOMAIN_W / J_PER_UJ)
        except BaseException:
            close_domains(self._files)
            raise
        self._domains = list(self.probed.ticks_s)
        self.tick_s = self.probed.tick_s("package")
        self.min_window_s = TICKS_PER_WINDOW * self.tick_s
        self.provenances: Mapping[str, Provenance] = _provenances(self.probed)
        self._log = PowercapLog(self.probed.ticks_s)
        self._windows: list[tuple[Reading, Reading]] = []
        self._begin: Reading | None = None
        self._end_polling = self._machine.timing.background(self._poll)

    def start(self) -> None:
        """Raises MeterError if the meter was started already or closed, or if a counter isn't there any more."""
        if not self._files:
            raise MeterError("this energy meter has been closed", do="Open it again.")
        if self._begin is not None:
            raise MeterError("this energy meter was started twice", do="Call stop() first.")
        reading = read(self._machine, self._domains)
        if reading.is_gone:
            raise MeterError("a RAPL energy counter has disappeared", got="; ".join(reading.failures))
        self._begin = reading

    def stop(self) -> None:
        begin, self._begin = self._begin, None
        if begin is None:
            raise MeterError("this energy meter was stopped before it was started", do="Call start() first.")
        self._windows.append((begin, read(self._machine, self._domains)))

    def _poll(self) -> float:
        """Read the counters between the marks; returns in how many seconds to do it again."""
        return self._log.add_poll(read(self._machine, self._domains))

    def collect(self) -> list[Window]:
        windows, self._windows = self._windows, []
        marks = [reading for window in windows for reading in window]
        fed, at = self._log.feed(marks, until_s=math.inf if self._begin is None else self._begin.before_s)
        return [self._window(fed, begin, end) for begin, end in zip(at[::2], at[1::2], strict=True)]

    def close(self) -> None:
        """End the thread and close the files. A second call does nothing."""
        self._end_polling()
        close_domains(self._files)

    def _window(self, fed: Sequence[Fed], begin: int, end: int) -> Window:
        """The window between two of the readings."""
        seconds = max(fed[end].reading.middle_s - fed[begin].reading.middle_s, 0.0)
        spans = self._log.between(fed[begin], fed[end])
        troubles = [
            _trouble(domain, span, seconds) or self._stillness(fed, begin, end, index)
            for index, (domain, span) in enumerate(zip(self._domains, spans, strict=True))
        ]
        if reasons := self._reasons(spans, troubles, seconds):
            return Window(seconds=seconds, reason="; ".join(reasons))
        uncertainties_uj = self._uncertainties_uj(fed, begin, end)
        values: dict[str, float] = {}
        uncertainties: dict[str, float] = {}
        for role, name in _VALUES.items():
            mine = [index for index, domain in enumerate(self._domains) if domain.role == role]
            # memory that counted nothing, or something doubtful, is left out, and the packages still hold
            if mine and not any(troubles[index] for index in mine):
                values[name] = J_PER_UJ * sum(spans[index].counted for index in mine)
                uncertainties[name] = J_PER_UJ * math.hypot(*(uncertainties_uj[index] for index in mine))
        return Window(seconds=seconds, values=values, uncertainties=uncertainties)

    def _stillness(self, fed: Sequence[Fed], begin: int, end: int, index: int) -> str:
        """Of a counter whose energy is in a value."""
        domain = self._domains[index]
        found = stillness(fed, begin, end, index, self.probed.ticks_s[domain]) if domain.role in _VALUES else ""
        return found and f"{domain} {found}"

    def _reasons(self, spans: Sequence[Span], troubles: Sequence[str], seconds: float) -> list[str]:
        """Why the window has no value. A counter that was reset says so for all of them."""
        named = list(zip(self._domains, spans, strict=True))
        reasons = [f"{domain}: {span.reason}" for domain, span in named if span.reason]
        if seconds < MIN_TICKS * self.tick_s:
            reasons.append(f"below_resolution: {seconds:.3g} s are less than {MIN_TICKS} ticks")
        packages = zip(self._domains, troubles, strict=True)
        return reasons or [trouble for domain, trouble in packages if trouble and domain.role == "package"]

    def _uncertainties_uj(self, fed: Sequence[Fed], begin: int, end: int) -> list[float]:
        """Per domain, standard: age of the value at both ends, moment of reading, resolution, an unnoticed reset."""
        ends = (fed[begin].reading, fed[end].reading)
        read_s = math.hypot(*(reading.after_s - reading.before_s for reading in ends))
        powers_uw = [self._powers_uw(fed, begin, end, math.inf)]
        least_s = MIN_TICKS * max(tick_s for domain, tick_s in self.probed.ticks_s.items() if domain.role in _VALUES)
        around = _around(fed, begin, end, least_s)
        powers_uw += [self._powers_uw(fed, *pair, LONGEST_POLL_S + least_s) for pair in around]
        found: list[float] = []
        for index, (domain, span) in enumerate(
            zip(self._domains, self._log.between(fed[begin], fed[end]), strict=True)
        ):
            power_uw = min(max(powers[index] for powers in powers_uw), MAX_DOMAIN_W / J_PER_UJ)
            resolution_uj = (domain.largest_uj + 1) / COUNTS_OF_RANGE
            aged = power_uw * self.probed.ticks_s[domain] / math.sqrt(6)
            read_at = power_uw * read_s / math.sqrt(12)
            found.append(math.hypot(aged, read_at, resolution_uj / math.sqrt(6), span.doubt / math.sqrt(3)))
        return found

    def _powers_uw(self, fed: Sequence[Fed], begin: int, end: int, concentrated_s: float) -> list[float]:
        """Per domain the mean power between two readings, had its energy come within `concentrated_s`; 0 if unknown."""
        seconds = max(fed[end].reading.middle_s - fed[begin].reading.middle_s, self.tick_s)
        spans = self._log.between(fed[begin], fed[end])
        return [0.0 if span.reason else span.counted / min(seconds, concentrated_s) for span in spans]


def _around(fed: Sequence[Fed], begin: int, end: int, least_s: float) -> Iterator[tuple[int, int]]:
    """The spans next to the beginning and the end of a window, each at least so long: the power there can be another
    than in its middle."""
    for mark in (begin, end):
        at_s = fed[mark].reading.middle_s
        before = next((one for one in range(mark - 1, -1, -1) if at_s - fed[one].reading.middle_s >= least_s), None)
        after = next((one for one in range(mark + 1, len(fed)) if fed[one].reading.middle_s - at_s >= least_s), None)
        if before is not None:
            yield before, mark
        if after is not None:
            yield mark, after


def _trouble(domain: Domain, span: Span, seconds: float) -> str:
    if span.counted == 0:
        return f"{domain}: stuck: it did not move in {seconds:.3g} s"
    if span.doubt > MAX_DOUBT * span.counted:
        joules, doubt = span.counted * J_PER_UJ, span.doubt * J_PER_UJ
        return f"{domain}: ambiguous wrap: a reset instead of it would change the {joules:.3g} J by up to {doubt:.3g} J"
    return ""


def _provenances(probed: Probed) -> dict[str, Provenance]:
    notes = (
        f"tick {probed.tick_s('package') * 1e3:.3g} ms, jitter {probed.jitter_s * 1e3:.2g} ms",
        f"a reading takes {probed.read_s * 1e6:.2g} us",
        f"a domain is taken to draw at most {MAX_DOMAIN_W:g} W",
        *(f"left out: {domain} {reason}" for domain, reason in probed.left_out.items()),
    )
    found: dict[str, Provenance] = {}
    for role, name in _VALUES.items():
        names = ", ".join(str(domain) for domain in probed.ticks_s if domain.role == role)
        if names:
            found[name] = Provenance(
                kind="measured",
                source=f"RAPL (a model in the silicon), Linux powercap: {names}",
                boundary=_BOUNDARIES[role],
                uncertainty_reason=_GAINS[role],
                tick_s=probed.tick_s(role),
                notes=notes,
            )
    return found
