"""The page at `/docs` in a real browser: what can be called is read, and tried."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2
from support import described, shop
from support.browser import browsing, expect
from support.deployment import SUM, deployed
from support.gateway import FakeMom, running_gateway, serving_mom

SIZES = [(400, "dark"), (1280, "light")]


@pytest.mark.parametrize(("width", "scheme"), SIZES, ids=str)
async def test_a_call_is_tried(tmp_path, width, scheme):
    """A person who reads what can be called would have to go elsewhere to call it; or the page would ask others."""
    asked: list[str] = []
    async with deployed(tmp_path, SUM) as one:
        screen = {"width": width, "height": 900}
        async with browsing(one, begin=False, viewport=screen, color_scheme=scheme) as sight:
            page = sight.page
            page.on("request", lambda request: asked.append(request.url))
            await page.goto(f"{one.url}/docs?service={SUM}")
            operation = page.locator(".opblock", has_text="/v1/sum")
            await operation.locator(".opblock-summary-control").click()
            await operation.locator("textarea").fill('{"a": 2, "b": 3}')
            await operation.get_by_role("button", name="Execute").click()
            answer = operation.locator(".live-responses-table .response")
            await expect(answer.locator(".response-col_status")).to_have_text("200")
            await expect(answer.locator(".highlight-code code").first).to_contain_text('"result": 5')
            wider = await sight.sideways()
            paper = await page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert wider == 0
    assert (paper == "rgb(17, 20, 27)") is (scheme == "dark")
    assert not [url for url in asked if not url.startswith((one.url, "data:"))]


async def test_with_many_services_it_shows_one_by_one(tmp_path):
    """A document of a thousand services would hold the browser for minutes; one of none would be an empty page."""
    mom = FakeMom()
    async with (
        serving_mom(mom) as port,
        running_gateway(tmp_path, port) as gateway,
        browsing(gateway, begin=False) as sight,
    ):
        page, note, tags = sight.page, sight.page.locator("#note"), sight.page.locator(".opblock-tag-section h3")
        await page.goto(gateway.url)
        await page.get_by_role("link", name="What can be called").click()
        await expect(note).to_contain_text("No service is catalogued")

        mom.announce(shop.entry(), *(_service(number) for number in range(300)))
        await gateway.available(name=_name(299), availability="away")
        await page.reload()
        await expect(tags).to_have_text([_name(0), "TasksCalls that were queued."])
        field = page.get_by_role("combobox", name="Service")
        await field.fill("none.v1.None")
        await field.press("Enter")
        await expect(note).to_have_text("There is no service none.v1.None.")
        await field.fill(shop.NAME)
        await field.press("Enter")
        await expect(tags.first).to_have_text(shop.NAME)
        shown = page.url

    assert shown == f"{gateway.url}/docs?service={shop.NAME}"


def _name(number: int) -> str:
    return f"many.v1.Service{number:03}"


def _service(number: int):
    file = descriptor_pb2.FileDescriptorProto(name=f"many/{number}.proto", package="many.v1", syntax="proto3")
    file.message_type.add(name=f"Thing{number}")
    described.service(file, f"Service{number:03}", {"Do": (f".many.v1.Thing{number}",) * 2})
    return described.entry(described.pool_of(file), _name(number))
