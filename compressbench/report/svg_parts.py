"""Pieces of the small SVG pictures that reports write: they fit dark and light pages, and hold text that may be hostile."""

from __future__ import annotations

from html import escape

from compressbench.core.names import one_line

LONGEST_TEXT = 80


def picture(width: int, height: int, title: str, parts: list[str]) -> str:
    """A whole file. `parts` are drawn in their order, the later over the earlier."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" '
        'font-size="11" fill="currentColor" stroke="none">'
    )
    return "\n".join([head, hint(title), *parts, "</svg>", ""])


def hint(text: str) -> str:
    """What is shown over the element that it stands in."""
    return f"<title>{_text(text)}</title>"


def label(x: float, y: float, text: str, anchor: str = "start", opacity: float = 1.0) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" opacity="{opacity:g}">{_text(text)}</text>'


def straight(x1: float, y1: float, x2: float, y2: float, dashes: str = "", width: float = 1.0) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="currentColor" stroke-width="{width:g}" opacity="0.6"{dashed}/>'


def _text(text: str) -> str:
    shown = one_line(text)
    return escape(shown if len(shown) <= LONGEST_TEXT else f"{shown[:LONGEST_TEXT]}…")
