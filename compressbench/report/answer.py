"""A recommendation in sentences, whatever it is printed on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from compressbench.core.units import three_digits
from compressbench.report.catalog import Catalog
from compressbench.report.choice import largest_loss
from compressbench.report.figures import Contender, is_timed
from compressbench.report.goal_words import Units, amount_text, goal_text, judgement_text, shortfall_text, units_of
from compressbench.report.quality_words import signed
from compressbench.report.recommend import NOT_DEGRADED, Judged, Recommendation
from compressbench.report.rows import Row
from compressbench.report.words import claim_lines, title, value_text

MOST_LISTED = 20
_Z95 = 1.959963984540054
_COSTS = ("latency_p50_s", "throughput_per_s", "energy_j_per_inference", "peak_memory_bytes", "disk_bytes")


class Line(NamedTuple):
    name: str
    reasons: list[str]


class Answer(NamedTuple):
    """`verdict` is DEPLOY, KEEP or NONE QUALIFIES; `because` one line of reasons; `listed` why each other isn't it, the
    nearest first, and `unlisted` how many more there are of which kind.
    """

    verdict: str
    name: str
    because: list[str]
    notes: list[Line]
    listed: list[Line]
    unlisted: list[str]
    how: list[str]
    watermark: str = ""


def answer_of(found: Recommendation, catalog: Catalog) -> Answer:
    everyone = [*found.rejected, *found.outdone, *(each for each in (found.deploy, found.runner_up) if each)]
    units = units_of(catalog, [each.contender for each in everyone])
    words = _Words(found, catalog, units, len({each.contender.recipe for each in everyone}) > 1)
    others = [*((each, [words.outdone(each)]) for each in found.outdone[:MOST_LISTED])]
    left = MOST_LISTED - len(others)
    others += [(each, reasons_of(each, units)) for each in found.rejected[:left]]
    unlisted = [*found.outdone[MOST_LISTED:], *found.rejected[max(0, left) :]]
    listed = [Line(words.name(each), reasons) for each, reasons in others]
    parts = listed, _counts(unlisted), words.how()
    if found.deploy is None:
        return Answer("NONE QUALIFIES", "", words.nothing(), words.nearest(), *parts, found.watermark)
    verdict = "KEEP" if found.deploy.contender.is_baseline else "DEPLOY"
    return Answer(
        verdict, words.name(found.deploy), words.because(found.deploy), words.notes(), *parts, found.watermark
    )


def reasons_of(judged: Judged, units: Units) -> list[str]:
    """Every goal that it misses or leaves undecided; of one that failed only why it did."""
    if judged.contender.faults:
        return list(judged.contender.faults)
    return list(dict.fromkeys(judgement_text(each, units) for each in judged.failures))


def _counts(unlisted: Sequence[Judged]) -> list[str]:
    kinds: Counter[str] = Counter()
    for each in unlisted:
        first = next(iter(each.failures), None)
        if each.contender.faults:
            kinds["failed, implausible or not what it claims"] += 1
        elif first is None:
            kinds["meets every goal, and something better does too"] += 1
        else:
            kinds[f"{title(first.figure)} {first.outcome}"] += 1
    return [f"{count:,} more: {kind}" for kind, count in kinds.most_common(MOST_LISTED)]


class _Words(NamedTuple):
    found: Recommendation
    catalog: Catalog
    units: Units
    has_recipes: bool

    def name(self, judged: Judged) -> str:
        """With its recipe where several are looked at."""
        contender = judged.contender
        return f"{contender.recipe}: {contender.candidate}" if self.has_recipes else contender.candidate

    def row(self, judged: Judged) -> Row:
        return self.catalog.row(judged.contender.at)

    def because(self, judged: Judged) -> list[str]:
        if judged.contender.is_baseline:
            best = "no candidate that meets every goal is shown to be better"
            return [f"{best} on {title(self.found.objective)}", "; ".join(self._own_numbers(judged))]
        steps = f"{judged.contender.steps}: " if judged.contender.steps else ""
        return [f"{steps}{'; '.join(self._claims(judged))}"]

    def _own_numbers(self, judged: Judged) -> Iterator[str]:
        row = self.row(judged)
        for name in self._shown(row):
            yield f"{title(name)} {value_text(name, row.cells[name])}"

    def _shown(self, row: Row) -> list[str]:
        speed = "throughput_per_s" if row.scenario == "offline" else "latency_p50_s"
        costs = [name for name in _COSTS if name not in ("latency_p50_s", "throughput_per_s") or name == speed]
        names = dict.fromkeys([self.found.objective, *row.metrics, *costs])
        return [name for name in names if name in row.cells and row.cells[name].value is not None]

    def _claims(self, judged: Judged) -> Iterator[str]:
        """The objective, then the metrics, then the other costs, each with what may be said of it against the baseline."""
        row = self.row(judged)
        for number, name in enumerate(self._shown(row)):
            verdict = row.against_baseline.get(name)
            claim = ""
            if verdict is not None and name in row.metrics:
                claim = self._change(row, name)
            elif verdict is not None:
                claim = _cost_claim(claim_lines(name, verdict), says_of_whom=number == 0)
            yield f"{title(name)} {value_text(name, row.cells[name])}" + (f", {claim}" if claim else "")

    def _change(self, row: Row, name: str) -> str:
        verdict = row.against_baseline[name]
        if verdict.difference is None or verdict.difference_low is None or verdict.difference_high is None:
            return verdict.verdict
        scale = 100 if row.cells[name].unit == "fraction" else 1
        half = scale * (verdict.difference_high - verdict.difference_low) / 2
        change, low, high = (
            signed(scale * each, half) for each in (verdict.difference, verdict.difference_low, verdict.difference_high)
        )
        return f"{change}{' points' if scale == 100 else ''} [{low}, {high}], {verdict.verdict}"

    def notes(self) -> list[Line]:
        found = self.found
        assert found.deploy is not None  # noqa: S101 -- the caller asked
        lines = self._doubts(found.deploy)
        if found.tied:
            names = _listed([self.name(each) for each in (found.deploy, *found.tied)])
            reason = f"{names} can't be told apart on {title(found.objective)}; {self._tie_break()}"
            lines.append(Line("TIED", [reason]))
        if found.runner_up is not None:
            lines.append(Line(f"RUNNER-UP {self.name(found.runner_up)}", self.because_second(found.runner_up)))
        elif not found.outdone:
            lines.append(Line("RUNNER-UP", ["none: nothing else qualifies"]))
        return lines

    def _doubts(self, deploy: Judged) -> list[Line]:
        """What the loss may be where nobody set a limit to it."""
        if deploy.contender.is_baseline or NOT_DEGRADED not in self.found.policy.goals:
            return []
        row = self.row(deploy)
        doubts: list[str] = []
        for judged in deploy.judgements:
            verdict = row.against_baseline.get(judged.figure)
            if judged.goal == NOT_DEGRADED and judged.high and verdict and verdict.verdict == "inconclusive":
                most = amount_text(judged.figure, judged.high, self.units)
                is_more_better = judged.direction == "higher"
                change = "lost" if is_more_better else "risen by"
                flag = "--max-accuracy-drop" if is_more_better else f"--goal {judged.figure}:percent-max-degradation=X"
                doubts.append(
                    f"{title(judged.figure)} may have {change} up to {most}: not shown to be degraded, nor to be the same. "
                    f"Set a limit ({flag})."
                )
        return [Line("MIND", doubts)] if doubts else []

    def because_second(self, judged: Judged) -> list[str]:
        if judged.contender.is_baseline:
            return ["the baseline itself, which meets every goal"]
        return ["; ".join(self._claims(judged))]

    def _tie_break(self) -> str:
        found = self.found
        assert found.deploy is not None  # noqa: S101 -- the caller asked
        ours, first = found.deploy.contender, found.deploy.contender.metrics[:1]
        loss, scale = largest_loss(ours, found.field.scale), found.field.scale
        others = [largest_loss(each.contender, scale) for each in found.tied]
        name = self.name(found.deploy)
        if first and all(loss < other for other in others) and math.isfinite(loss) and scale != "absolute":
            return (
                f"{name} loses the least {title(first[0])}, at most {amount_text(first[0], max(0.0, loss), self.units)}"
            )
        if first and all(loss < other for other in others):
            return f"{name} has the best {title(first[0])} for certain"
        return f"{name} is preferred for its quality, then its size, then its place in the recipe"

    def outdone(self, judged: Judged) -> str:
        """Of one that meets every goal: how it stands to the one that is deployed."""
        deploy = self.found.deploy
        assert deploy is not None  # noqa: S101 -- the caller asked
        theirs = self.name(deploy)
        objective = title(self.found.objective)
        if any(each is judged for each in self.found.unproven):
            return f"meets every goal, and is not shown to be better than the baseline on {objective}"
        if any(each is judged for each in self.found.tied):
            return f"meets every goal, and can't be told apart from {theirs} on {objective}"
        return f"meets every goal; {objective} {self._relation(judged, deploy)} that of {theirs}"

    def _relation(self, judged: Judged, deploy: Judged) -> str:
        places = {each.at: place for place, each in enumerate(self.found.field.contenders)}
        ours = self.found.field.positions[places[judged.contender.at]]
        theirs = self.found.field.positions[places[deploy.contender.at]]
        change, half = ours.value - theirs.value, _Z95 * math.hypot(ours.error, theirs.error)
        name = self.found.objective
        figure = judged.contender.figures[name]
        sign = -1.0 if figure.direction == "higher" else 1.0
        if _is_log(judged.contender, name, is_absolute=self.found.field.scale == "absolute"):
            times, low, high = (math.exp(sign * each) for each in (change, change - half, change + half))
            digits = 4 if abs(times - 1) < 0.01 else 2
            interval = "" if half == 0 else f" [{min(low, high):.{digits}f}, {max(low, high):.{digits}f}]"
            return f"{times:.{digits}f}x{interval}"
        texts = [amount_text(name, abs(change), self.units), amount_text(name, half, self.units)]
        return f"{texts[0]} (±{texts[1]}) {'above' if sign * change > 0 else 'below'}"

    def nothing(self) -> list[str]:
        """What the baseline would do, where no candidate will."""
        baseline = self.found.baseline
        if baseline is None:
            return ["There is no record of the baseline."]
        name = self.name(baseline) if self.has_recipes else "the baseline"
        if baseline.qualifies:
            return [f"No candidate meets every goal; {name} does: keep it."]
        return [
            f"No candidate meets every goal, and {name} doesn't either: {'; '.join(reasons_of(baseline, self.units))}"
        ]

    def nearest(self) -> list[Line]:
        nearest = self.found.nearest
        if nearest is None:
            return []
        return [Line(f"NEAREST MISS {self.name(nearest)}", [self._by_how_much(nearest)])]

    def _by_how_much(self, nearest: Judged) -> str:
        known = [each for each in nearest.failures if each.fraction is not None]
        if not known:
            return "nobody can say by how much"
        worst = max(known, key=lambda each: each.fraction or 0.0)
        share = f" ({three_digits(100 * (worst.fraction or 0.0))} % of the limit)" if worst.goal.value else ""
        return f"misses {title(worst.figure)} by up to {shortfall_text(worst, self.units)}{share}"

    def how(self) -> list[str]:
        """The goals, and by which rule they were judged."""
        found = self.found
        directions = {
            name: figure.direction
            for each in (found.deploy, found.runner_up, found.nearest, *found.rejected[:1], found.baseline)
            if each is not None
            for name, figure in each.contender.figures.items()
        }
        goals = [goal_text(goal, directions, self.units) for goal in found.policy.goals]
        return [
            *(f"asked: {goal}" for goal in dict.fromkeys(goals)),
            f"objective: the best {title(found.objective)}, {found.field.scale}",
            "A goal is met if the whole 95 % interval is within it: of losses and gains paired with the baseline of the "
            "same run, of a number itself that of this run's calls, not of another day. Each candidate is judged on its "
            "own: of many just beyond a limit 1 in 40 passes by chance.",
            "Candidates must be shown to beat the baseline on the objective; of those that can't be told apart from the "
            "best (z-test, Holm) the one that may lose least quality is taken, then the smallest.",
        ]


def _cost_claim(lines: list[str], *, says_of_whom: bool) -> str:
    """`2.46x faster than the baseline [2.38, 2.54]`."""
    if not lines or not says_of_whom or "x" not in lines[0]:
        return " ".join(lines)
    of_whom = "than the baseline" if lines[0].endswith("er") else "the baseline's"
    return " ".join([lines[0], of_whom, *lines[1:]])


def _is_log(contender: Contender, name: str, *, is_absolute: bool) -> bool:
    figure = contender.figures[name]
    if figure.is_log:
        return True
    return is_timed(name, contender.metrics) if is_absolute else figure.difference is None


def _listed(names: Sequence[str], most: int = 4) -> str:
    shown = list(names[:most])
    more = len(names) - len(shown)
    if more:
        return f"{', '.join(shown)} and {more} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
