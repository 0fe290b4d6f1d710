"""10,000 simulated wraps and resets of RAPL's counters, and how many windows of energy come out right, void, or wrong.

Resets are to zero, as after a suspension, for which "no wrong joule" can be proved. A fifth as many more are to a random
value. There it can't: a lone counter that lands within what it could have counted since the last look shows nothing.

A window is right if the truth lies within three times its stated standard uncertainty, void if the meter gives a reason
instead of joules, and wrong otherwise. Simulated are ranges of 65.5 and 262 kJ, a package of 5 to 400 W whose power changes
within the window (0.3 s from its ends), with and without counters of its parts, and a polling thread that is late by
milliseconds, now and then by seconds. codecarbon reads the same tree at the same two moments, as its tasks do; it states
no uncertainty, so its window counts as wrong if it is off by more than 5 %.

    python benchmarks/rapl_wraps.py [--cases 10000] [--seed 0]          about 45 s of CPU time
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from codecarbon.core.cpu import IntelRAPL
from codecarbon.core.units import Time

from compressbench.core.protocols import Window
from compressbench.core.units import JOULES_PER_KWH
from compressbench.meters.edges import Step
from compressbench.meters.energy_rapl import RaplEnergy
from compressbench.testing.event_clock import EventClock
from compressbench.testing.powercap import INTEL_RANGE_UJ, SMALL_RANGE_UJ, FakeDomain, FakePowercap

CASES_PER_MACHINE = 50
COVERAGE = 3.0
QUIET_S = 0.3  # as long as the power around the ends of a window has to last, for the meter to see it
CODECARBON_TOLERANCE = 0.05


class Rig:
    """One simulated machine with our meter and codecarbon's on it."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng, self.clock = rng, EventClock()
        self.range_uj = rng.choice([SMALL_RANGE_UJ, INTEL_RANGE_UJ])
        parts = [("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram")] if rng.random() < 0.5 else []
        names = [("intel-rapl:0", "package-0"), *parts]
        self.has_parts = bool(parts)
        self.tree = FakePowercap(
            folder,
            [
                FakeDomain(at, name, 100.0, range_uj=self.range_uj, start_uj=rng.randrange(self.range_uj))
                for at, name in names
            ],
            self.clock,
        )
        machine = self.tree.machine
        late = machine.timing._replace(background=lambda step: self.clock.attach(self._late(step)))
        self.meter = RaplEnergy(machine._replace(timing=late))
        self.codecarbon = IntelRAPL(rapl_dir=str(self.tree.root))

    def _late(self, step: Step) -> Step:
        """The polls of a crowded machine: 6 ms late on average, one of 1,000 by up to 1 s, one of 10,000 by up to 20 s."""

        def run() -> float:
            kind = self.rng.random()
            most_s = 20.0 if kind < 1e-4 else 1.0
            return step() + (self.rng.uniform(0, most_s) if kind < 1e-3 else self.rng.expovariate(1 / 0.006))

        return run

    def set_powers(self) -> float:
        watts = math.exp(self.rng.uniform(math.log(5), math.log(400)))
        for domain, share in zip(self.tree.domains, (1.0, 0.6, 0.1), strict=False):
            domain.set_power(self.tree.now_s, watts * share)
        return watts

    def put(self, below_top_j: float) -> None:
        """Between windows, so that it touches none: the package's counter stands so many joules before its end."""
        for domain in self.tree.domains:
            domain.reset(self.tree.now_s, self.rng.randrange(self.range_uj))
        to_uj = (self.range_uj + 1 - round(below_top_j * 1e6)) % (self.range_uj + 1)
        self.tree["package-0"].reset(self.tree.now_s, to_uj)
        self.clock.advance(self.rng.uniform(0.01, 2.0))


Event = Callable[[Rig], None]
"""What happens to the counters at a random moment of a window."""


def wrap(rig: Rig) -> None:
    """The counter passes its end within the next moments by itself; see `prepare`."""


def reset(rig: Rig) -> None:
    rig.tree.reset(0)


def suspend(rig: Rig) -> None:
    rig.tree.suspend(rig.rng.uniform(1, 3600))


def reset_anywhere(rig: Rig) -> None:
    for domain in rig.tree.domains:
        domain.reset(rig.tree.now_s, rig.rng.randrange(rig.range_uj))


KINDS: dict[str, tuple[Event, str]] = {
    "wrap": (wrap, "top"),
    "reset to 0 from anywhere": (reset, "anywhere"),
    "reset to 0 just before a wrap": (reset, "top"),
    "reset to 0 near 0": (reset, "bottom"),
    "suspended, reset to 0": (suspend, "top"),
}
RANDOM = "reset to a random value"
MORE = {RANDOM: (reset_anywhere, "anywhere")}


def run_case(rig: Rig, kind: str) -> tuple[str, str, float]:
    """The outcome of our meter and of codecarbon, and our error in standard uncertainties (nan if void)."""
    event, place = (KINDS | MORE)[kind]
    seconds = math.exp(rig.rng.uniform(math.log(0.2), math.log(20.0)))
    watts = rig.set_powers()
    near_j = {"top": rig.rng.uniform(0.0, 1.5) * watts * seconds, "bottom": -rig.rng.uniform(0.0, 2.0) * watts}
    rig.put(near_j.get(place, rig.rng.uniform(0, rig.range_uj * 1e-6)))
    rig.tree.refresh()
    rig.codecarbon.start()
    begin_s = rig.tree.now_s
    rig.meter.start()
    happens_s = rig.rng.uniform(0.0, seconds)
    rig.clock.advance(happens_s)
    event(rig)
    if QUIET_S < happens_s < seconds - QUIET_S:
        rig.set_powers()
    rig.clock.advance(seconds - happens_s)
    rig.meter.stop()
    end_s = rig.tree.now_s
    rig.tree.refresh()
    true_j = rig.tree["package-0"].true_joules(begin_s, end_s)
    outcome, error = judge(rig.meter.collect()[0], true_j)
    return outcome, judge_codecarbon(rig, end_s - begin_s, true_j), error


def judge(window: Window, true_j: float) -> tuple[str, float]:
    if window.reason:
        return "void", math.nan
    error = (window.values["energy_j"] - true_j) / window.uncertainties["energy_j"]
    return ("right" if abs(error) <= COVERAGE else "wrong"), error


def judge_codecarbon(rig: Rig, seconds: float, true_j: float) -> str:
    details = rig.codecarbon.get_cpu_details(Time.from_seconds(seconds))
    joules = sum(kwh for name, kwh in details.items() if "Energy" in name) * JOULES_PER_KWH
    if any(file.sample_skipped for file in rig.codecarbon._rapl_files):
        return "void"
    return "right" if abs(joules - true_j) <= CODECARBON_TOLERANCE * true_j else "wrong"


def run(num_cases: int, seed: int) -> tuple[dict[str, Counter[str]], list[float]]:
    """Outcomes by kind, and the errors of the windows with a value (resets to a random value apart)."""
    rng = random.Random(seed)  # noqa: S311 -- a simulation
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(num_cases)] + [RANDOM] * (num_cases // 5)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS | MORE}
    errors: list[float] = []
    for begin in range(0, len(kinds), CASES_PER_MACHINE):
        with tempfile.TemporaryDirectory() as folder:
            rig = Rig(Path(folder), rng)
            for kind in kinds[begin : begin + CASES_PER_MACHINE]:
                ours, theirs, error = run_case(rig, kind)
                counts[kind].update(
                    [ours, f"{ours} {'with parts' if rig.has_parts else 'alone'}", f"codecarbon {theirs}"]
                )
                if kind in KINDS and not math.isnan(error):
                    errors.append(abs(error))
            rig.meter.close()
    return counts, errors


def row(name: str, found: Counter[str]) -> str:
    ours = [found["right"], found["void"], found["wrong"], found["wrong alone"], found["wrong with parts"]]
    theirs = [found[f"codecarbon {outcome}"] for outcome in ("right", "void", "wrong")]
    return f"{name:32}" + "".join(f"{count:8}" for count in [*ours, *theirs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # codecarbon's, on what it finds in the tree
    began_s = time.perf_counter()
    counts, errors = run(given.cases, given.seed)
    heads = ["right", "void", "WRONG", "(alone", "parts)", "peer: ok", "void", "WRONG"]
    print(f"{'windows with':32}" + "".join(f"{head:>8}" for head in heads))
    for kind in KINDS:
        print(row(kind, counts[kind]))
    print(row("all of these", sum((counts[kind] for kind in KINDS), Counter())))
    print(row(RANDOM, counts[RANDOM]))
    within = [sum(error <= limit for error in errors) / len(errors) for limit in (1, 2, 3)]
    print(f"truth within 1, 2, 3 standard uncertainties: {within[0]:.1%}, {within[1]:.1%}, {within[2]:.2%}")
    print(f"{time.perf_counter() - began_s:.0f} s, {time.process_time():.0f} s of them CPU time")


if __name__ == "__main__":
    main()
