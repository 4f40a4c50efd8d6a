"""Pages of other origins that speak Connect and gRPC-Web, in a real Chromium."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from support.browser import CHROMIUM, FLAGS, playwright
from support.gateway import Gateway
from support.rpc_clients import BLOB, FOREIGN, MET, Ledger, descriptors, met, needs_npm

pytestmark = [needs_npm, pytest.mark.asyncio(loop_scope="module")]
TRANSPORTS = ("connect-json", "connect-proto", "grpc-web")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A page with the clients, at an origin of its own."""
    bundle = tmp_path_factory.mktemp("page") / "page.js"
    command = [str(FOREIGN / "node_modules/.bin/esbuild"), "connect_page.mjs", "--bundle", f"--outfile={bundle}"]
    await asyncio.to_thread(subprocess.run, command, cwd=FOREIGN, check=True, capture_output=True, timeout=60)

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/page.js":
            return web.Response(body=bundle.read_bytes(), content_type="text/javascript", charset="utf-8")
        icon = '<link rel="icon" href="data:,">'
        return web.Response(text=f"{icon}<script src=/page.js></script>", content_type="text/html")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_pages_meet_their_services(tmp_path: Path, page_url: str) -> None:
    """A page could call, and see neither errors' details nor metadata; or be kept from calling by its browser."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    ledger = Ledger()
    async with met(tmp_path, ledger, cors_origins=page_url) as gateway, playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            page = await browser.new_page()
            await page.goto(page_url)
            for transport in TRANSPORTS:
                assert await meeting(page, transport, gateway) == MET, transport
                told = next(one for one in ledger.told[::-1] if "tenant" in one)
                assert (told["tenant"], told["blob-bin"]) == ("acme", BLOB)
                # What a browser says by itself is no metadata.
                assert not {"origin", "referer", "sec-fetch-mode", "accept"} & told.keys()
            by_google: object = await page.evaluate(
                "(said) => window.meetAsText(...said)", [gateway.url, descriptors()]
            )
        finally:
            await browser.close()
    assert by_google == {"line": 300, "refused": [8, "no more", "9"], "stream": [0, 1, 2]}


async def meeting(page: object, transport: str, gateway: Gateway) -> object:
    arguments = [transport, gateway.url, descriptors()]
    untyped: object = await page.evaluate("(said) => window.meet(...said)", arguments)  # type: ignore[attr-defined]
    return untyped
