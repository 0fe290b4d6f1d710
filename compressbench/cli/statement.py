"""`compressbench statement`: a one-page energy and carbon statement of one model, and its model card's metadata."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressbench.cli import arguments, carbon_flags, reading

if TYPE_CHECKING:
    from compressbench.lifecycle.statement import Statement


class Form(StrEnum):
    md = "md"
    html = "html"
    json = "json"


def statement(
    records: reading.Records,
    candidate: Annotated[
        str, typer.Option("--candidate", help="Of which row, if there are several.", show_default=False)
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it here instead of printing it.", show_default=False)
    ] = None,
    region: carbon_flags.Region = "",
    grid_g_per_kwh: carbon_flags.GridGrams = None,
    site: carbon_flags.Site = "",
    pue: carbon_flags.Pue = None,
    wue_site: carbon_flags.WueSite = None,
    wue_grid: carbon_flags.WueGrid = None,
    embodied_kg: carbon_flags.EmbodiedKg = None,
    share: carbon_flags.Share = None,
    lifetime_years: carbon_flags.LifetimeYears = None,
    utilisation: carbon_flags.Utilisation = None,
    end_of_life_kg: carbon_flags.EndOfLifeKg = None,
    price_per_hour: carbon_flags.PricePerHour = None,
    price_per_kwh: carbon_flags.PricePerKwh = None,
    currency: carbon_flags.Currency = "",
    recipe: reading.RecipeName = "",
    key: reading.Key = "",
    form: Annotated[Form, typer.Option("--format", "-f", help="A model card, a page to print, or data.")] = Form.md,
    as_json: arguments.AsJson = False,
) -> None:
    """State what one model was measured to use, emit and drink, each number with the place in the record behind it.

    Markdown begins with a Hugging Face model card's metadata. Exit 4 if its energy was not measured: what there is, is
    stated all the same.
    """
    from compressbench.cli.balance_rows import chosen
    from compressbench.cli.carbon_rows import NAMES
    from compressbench.cli.statement_rows import named, subject_of
    from compressbench.lifecycle.statement import statement_of

    numbers = {
        "grid_g_per_kwh": grid_g_per_kwh,
        "pue": pue,
        "wue_site": wue_site,
        "wue_grid": wue_grid,
        "lifetime_years": lifetime_years,
        "utilisation": utilisation,
        "end_of_life_kg": end_of_life_kg,
        "price_per_hour": price_per_hour,
        "price_per_kwh": price_per_kwh,
    }
    terms = carbon_flags.terms_of(region, site, currency, numbers)
    # a search is all that the run did, whichever of its rows are the newest
    catalog = reading.read_catalog(records, all_runs=True)
    contenders = chosen(catalog, NAMES, recipe=recipe, key=key)
    subject = subject_of(catalog, contenders, named(contenders, candidate), terms, kg=embodied_kg, share=share)
    found = statement_of(subject, terms)
    _give(found, "json" if as_json else form.value, region, output)
    _leave(found)


def _give(found: Statement, form: str, region: str, output: Path | None) -> None:
    text = _text(found, form, region)
    if output is None:
        typer.echo(text, nl=False)
    else:
        from compressbench.records.files import write_atomically

        write_atomically(output, text.encode())


def _text(found: Statement, form: str, region: str) -> str:
    if form == "html":
        from compressbench.lifecycle.statement_page import to_html

        return to_html(found, region)
    from compressbench.lifecycle.statement_words import to_data, to_markdown

    if form == "json":
        from compressbench.core.names import json_text

        return json_text(to_data(found, region))
    from compressbench.report.plain import escape

    return to_markdown(found, escape, region)


def _leave(found: Statement) -> None:
    """Raises MissingMeasurementError where the number that all others follow from isn't there."""
    from compressbench.core.errors import MissingMeasurementError

    energy = found.number("energy_j_per_inference")
    if energy is not None and energy.value is None:
        where = found.subject.account.facts.candidate
        raise MissingMeasurementError("its energy was not measured", where=where, got=energy.reason)
