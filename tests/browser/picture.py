"""The README's picture of the leaderboard: `python tests/browser/picture.py` draws it from results/site."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from browser_parts import CHROMIUM

RESULTS = Path(__file__).parent.parent.parent / "results"
GROUP = "quickstart"
WIDTH, HEIGHT, MARGIN = 1320, 1850, 20


def draw(site: Path, out: Path) -> None:
    from playwright.sync_api import FloatRect, sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        page.goto((site / "index.html").as_uri())
        page.wait_for_selector("#ranked tbody tr")
        key = page.evaluate(f"compressbench.board.groups.find((group) => group.title === '{GROUP}').key")
        page.goto(f"{(site / 'index.html').as_uri()}#group={key}")
        page.get_by_role("heading", name=GROUP).wait_for()
        page.wait_for_timeout(1500)  # plots come one after the other
        top = page.locator(".lead").bounding_box()
        y = top["y"] if top else 0
        clip = FloatRect(x=MARGIN, y=y, width=WIDTH - 2 * MARGIN, height=HEIGHT)
        page.screenshot(path=out, full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit("no chromium on this machine: the picture stays as it is (apt-get install chromium)")
    draw(RESULTS / "site", RESULTS / "leaderboard.png")
