"""Makes the README's pictures anew: `PYTHONPATH=tests python -m browser.pictures`, with what `nox -s browser` installs.

They show a running Poste: one service with direct calls, one that is away while calls wait, and dead letters.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, async_playwright
from rich.console import Console
from support.browser import CHROMIUM, FLAGS
from support.deployment import DEFAULTS, LEDGER, PRODUCT, SUM, Deployment, deployed
from support.operating import TOKEN

from poste.client import Client
from poste_cli.top.screen import Top

FOLDER: Final = Path(__file__).parents[2] / "compose/pictures"
#: So many calls are made at once, again and again; and how long, so that the charts have something to show.
_AT_ONCE: Final = 4
_SECONDS: Final = 45.0
_UNAVAILABLE: Final = 14
_PAGE: Final = {"width": 1280, "height": 900}
_COLUMNS, _ROWS = 120, 26


@contextlib.asynccontextmanager
async def busy(folder: Path, *, dead: int = 7, waiting: int = 40) -> AsyncIterator[Deployment]:
    """Run a Poste in which things happen."""
    policy = {LEDGER: {"max_attempts": 1}}
    async with deployed(folder, SUM, PRODUCT, LEDGER, settings=policy, pace=DEFAULTS) as office:
        # The last parts are the services.
        await office.parts[-2].stop()
        await asyncio.gather(
            *(office.queue(LEDGER, line=f"line {n}", fail_code=_UNAVAILABLE, times=1) for n in range(dead))
        )

        async def call() -> None:
            while True:
                await office.call(SUM, a=2, b=3)
                await asyncio.sleep(_AT_ONCE / 150)

        async def fill() -> None:
            for number in range(waiting):
                await office.queue(PRODUCT, a=2, b=number)
                await asyncio.sleep(0.5)

        working = [asyncio.create_task(call()) for _ in range(_AT_ONCE)] + [asyncio.create_task(fill())]
        try:
            yield office
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)


async def picture_page(browser: Browser, url: str, file: Path, **options: Any) -> None:
    """Make a picture of the page."""
    context = await browser.new_context(**{"viewport": _PAGE, **options})
    page = await context.new_page()
    async with Client(url, operator_token=TOKEN) as client:
        await page.goto(await client.page_link())
    await page.wait_for_timeout(1000 * _SECONDS)
    await page.screenshot(path=file)
    await context.close()


async def picture_top(browser: Browser, url: str, file: Path) -> None:
    """Make a picture of `poste top`."""
    top = Top(url)
    async with Client(url, operator_token=TOKEN) as client, contextlib.aclosing(client.watch()) as snapshots:
        number = 0
        async for snapshot in snapshots:
            top.show(snapshot)
            number += 1
            if number > 2:
                break
    console = Console(record=True, width=_COLUMNS, height=_ROWS, file=io.StringIO(), force_terminal=True)
    console.print(top)
    page = await browser.new_page(viewport=_PAGE)
    await page.set_content(console.export_svg(title="poste top"))
    await page.locator("svg").first.screenshot(path=file)


async def main() -> None:
    """Make both."""
    with tempfile.TemporaryDirectory() as folder:
        async with busy(Path(folder)) as office, async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            await picture_page(browser, office.url, FOLDER / "page.png")
            await picture_top(browser, office.url, FOLDER / "top.png")
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
