"""A real Chromium, headless, that shows the gateway's page."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest

from poste.client import Client
from support.deployment import Deployment
from support.operating import TOKEN

playwright = pytest.importorskip("playwright.async_api", reason="`nox -s browser` has what drives a browser")
expect = playwright.expect
expect.set_options(timeout=20_000)

CHROMIUM = shutil.which("chromium")
#: As root, without a screen, and connecting to the page's server alone.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Sight:
    """A page, and what its console said."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.complaints: list[str] = []
        page.on("console", self._listen)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _listen(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    async def begin(self, token: str = TOKEN) -> None:
        """Open the page, as an operator: by a link that signs in."""
        link = f"{self.url}/ui"
        if token:
            async with Client(self.url, operator_token=token) as client:
                link = await client.page_link()
        await self.page.goto(link)
        await expect(self.page.locator("#connection")).to_have_text("live")

    def card(self, service: str) -> Any:
        """The card of a service."""
        return self.page.locator(f'#services-list > [data-key="{service}"]')

    async def shows(self, service: str, light: str) -> None:
        """Wait until a service has a light."""
        await expect(self.card(service).locator(".light").first).to_have_text(light)

    async def focused(self) -> str:
        """The name of what has the focus."""
        name: str = await self.page.evaluate(
            "(document.activeElement.ariaLabel ?? document.activeElement.textContent).trim()"
        )
        return name

    async def looks(self, number: int) -> None:
        """Wait until so many further snapshots were shown."""
        clock = self.page.locator("#clock")
        for _ in range(number):
            await expect(clock).not_to_have_text(await clock.inner_text())

    async def sideways(self) -> int:
        """By how many pixels the page is wider than its window."""
        over: int = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return over


@contextlib.asynccontextmanager
async def browsing(deployment: Deployment, *, begin: bool = True, **options: Any) -> AsyncIterator[Sight]:
    """Open the page in a browser of its own; whatever its console complains of fails the test."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            context = await browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
            context.set_default_timeout(20_000)
            sight = Sight(await context.new_page(), deployment.url)
            if begin:
                await sight.begin()
            yield sight
        finally:
            await browser.close()
    assert sight.complaints == []
