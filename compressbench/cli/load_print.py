"""A load test on a terminal: a row for each rate, what failed, and the answer."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from compressbench.core.names import one_line
from compressbench.core.units import humanize, three_digits
from compressbench.measure.goodput import Estimate, RateResult
from compressbench.measure.load_test import LoadReport

_SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def print_report(report: LoadReport) -> None:
    Console().print(Group(*_parts(report)))


def _parts(report: LoadReport) -> list[RenderableType]:
    level, asked = report.level, report.asked
    ends = "exactly" if asked.forces_length else "at most"
    head = Text.assemble(
        (one_line(report.model), "bold"),
        f" at {one_line(report.url)} ({one_line(report.engine)}), {asked.num_requests} requests at each rate, "
        f"{ends} {asked.output_tokens} tokens; a request is good if its first token comes within "
        f"{humanize(level.ttft_s, 's')} of its arrival and the others every {humanize(level.tpot_s, 's')}.",
    )
    return [head, Text(), _rates(report), _quantiles(report), *_lines(report)]


def _rates(report: LoadReport) -> Table:
    table = Table("rate", "good", "goodput", "tokens/s", "most at once", "verdict", box=box.SIMPLE_HEAD)
    for column in table.columns[:5]:
        column.justify = "right"
    for each in report.results:
        table.add_row(
            f"{each.rate_per_s:g}/s",
            _share(each.attainment),
            f"{three_digits(each.goodput_per_s.value or 0)}/s",
            three_digits(each.output_tokens_per_s),
            str(each.max_in_flight),
            _verdict(each, report.level.goal),
        )
    return table


def _share(share: Estimate) -> str:
    return f"{100 * (share.value or 0):.1f} % [{100 * (share.low or 0):.1f}, {100 * (share.high or 0):.1f}]"


def _verdict(each: RateResult, goal: float) -> Text:
    if each.reason:
        return Text("no answer, see below", style="yellow")
    if each.is_kept:
        return Text("kept", style="green")
    if (each.attainment.high or 0) < goal:
        return Text(f"not kept: below {100 * goal:g} %", style="red")
    return Text(f"not shown: the interval is not above {100 * goal:g} %", style="yellow")


def _quantiles(report: LoadReport) -> Table:
    table = Table("rate", "", "p50", "p90", "p99", box=box.SIMPLE_HEAD)
    names = {"first token": "ttft_s", "per token": "tpot_s", "between tokens": "itl_s", "whole": "end_to_end_s"}
    for column in table.columns[2:]:
        column.justify = "right"
    for each in report.results:
        for at, (words, field) in enumerate(names.items()):
            found: Mapping[str, Estimate] = getattr(each, field)
            table.add_row(
                "" if at else f"{each.rate_per_s:g}/s", words, *(_quantile(found[p]) for p in ("p50", "p90", "p99"))
            )
    return table


def _quantile(found: Estimate) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "too few"
    scale, unit = next((scale, unit) for scale, unit in _SCALES if found.value >= scale or unit == "µs")
    value, low, high = (three_digits(each / scale) for each in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}] {unit}"


def _lines(report: LoadReport) -> list[Text]:
    lines = [
        Text(f"{each.rate_per_s:g}/s has no answer: {each.reason}.", style="yellow")
        for each in report.results
        if each.reason
    ]
    lines += [Text(f"{each.rate_per_s:g}/s: {_failed(each)}", style="red") for each in report.results if each.failures]
    if any(each.failures for each in report.results):
        lines.append(Text("Quantiles are of the requests that were answered; failures count as not good.", style="dim"))
    for each in report.results:
        lines += [
            Text(
                f"{each.rate_per_s:g}/s: {humanize(reading.value, 'J')} ({reading.kind}, {one_line(reading.boundary)})"
            )
            for reading in each.readings
        ]
    lines += [Text(f"No {name}: {one_line(why)}.", style="dim") for name, why in report.absent.items()]
    if report.times_sent > 1:
        times, cached = three_digits(report.times_sent), sum(each.cached_prompt_tokens for each in report.results)
        how = "it may have reused them" if report.prefix_cache else "the server was asked to reuse nothing"
        said = f", and says that it reused {cached} tokens" if cached else ""
        lines.append(Text(f"Each of {report.num_prompts} prompts was sent {times} times; {how}{said}.", style="dim"))
    return [*lines, Text(), _answer(report)]


def _failed(each: RateResult) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in each.failures.items())
    first = next(iter(each.failures))
    return f"{sum(each.failures.values())} of {each.num_requests} failed: {kinds}. E.g. {one_line(each.said[first])}"


def _answer(report: LoadReport) -> Text:
    goal = f"{100 * report.level.goal:g} %"
    if all(each.reason for each in report.results):
        return Text("Goodput: not measured, because this machine was too busy to be the clients.", style="bold")
    if report.goodput_per_s is None:
        return Text(f"Goodput: no rate that was tried keeps both limits for {goal} of requests.", style="bold")
    rates = [each.rate_per_s for each in report.results]
    more = "; higher rates were not tried" if report.goodput_per_s == max(rates) else ""
    return Text(
        f"Goodput: {report.goodput_per_s:g} requests per second keep both limits for at least {goal} of them{more}.",
        style="bold",
    )
