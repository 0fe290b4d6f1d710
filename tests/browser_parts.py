"""Debian's chromium, driven by Playwright; where there is none, the tests say so and are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: no page was opened (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page was opened")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Watched:
    """A page, with all that it logged as an error and every address that it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.addresses: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.addresses.append(request.url))

    def check(self) -> None:
        assert self.errors == []
        assert [each for each in self.addresses if not each.startswith(("file:", "data:"))] == []


@pytest.fixture
def watched(browser: Browser) -> Iterator[Any]:
    """Opens files in fresh windows: `watched(path, width=390)`. Each must be without errors and requests at the end."""
    contexts, opened = [], []

    def open_page(path: Path, *, fragment: str = "", width: int = 1440, theme: Any = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 1000 if width > 500 else 844}, color_scheme=theme
        )
        contexts.append(context)
        found = Watched(context.new_page())
        opened.append(found)
        found.page.goto(path.as_uri() + fragment)
        found.page.wait_for_selector("#ranked tbody tr, #unranked tbody tr", state="attached")
        return found.page

    yield open_page
    for each in opened:
        each.check()
    for context in contexts:
        context.close()
