"""A statement as one self-contained page: no script, nothing from a network, one sheet of A4 when it is printed."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from compressbench.core.names import one_line
from compressbench.lifecycle.model_card import model_card
from compressbench.lifecycle.statement import Statement
from compressbench.lifecycle.statement_words import (
    METHOD,
    Notes,
    doubts,
    headline,
    inputs,
    lines_of,
    not_stated,
    origins,
    title,
)

_ROOM = "compressbench.lifecycle"
_DENSITIES = ((48, "denser"), (37, "dense"))


def to_html(statement: Statement, region: str = "") -> str:
    """The page's style is allowed by its hash and nothing else is; every text is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    style = (files(_ROOM) / "templates" / "statement.css").read_text(encoding="utf-8")
    # the browser hashes what stands between the tags
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=PackageLoader(_ROOM), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_plain,
    )  # fmt: skip
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return environment.get_template("statement.html.jinja").render(
        policy=policy, style=style, **_context(statement, region)
    )


def _plain(value: Any) -> Any:
    """Signs that turn a line around or hide something are blanks; the style alone has lines."""
    return one_line(value) if isinstance(value, str) and type(value) is str else value


def _context(statement: Statement, region: str) -> dict[str, Any]:
    notes = Notes()
    facts = [(fact.name, fact.text, notes.of(fact.places)) for fact in statement.facts]
    put_in, missing = inputs(statement), not_stated(statement, model_card(statement, region)[1])
    sections = [(section.title, lines_of(section, notes)) for section in statement.sections]
    return {
        "title": title(statement),
        "density": _density(len(list(statement.numbers())) + len(put_in) + len(missing) + len(doubts(statement))),
        "measured_on": statement.subject.own.record.created_utc[:10],
        "doubts": doubts(statement),
        "headline": headline(statement),
        "facts": facts,
        "sections": sections,
        "inputs": put_in,
        "not_stated": missing,
        "method": METHOD,
        "records": [
            (letter, told, hashed[0][1] if len(hashed) == 1 else "") for letter, told, hashed in origins(statement)
        ],
        "notes": notes.lines(),
    }


def _density(num_lines: int) -> str:
    """More lines are printed smaller, so that one sheet holds them."""
    return next((name for least, name in _DENSITIES if num_lines >= least), "")
