"""The pages of a gateway that asks for keys, in a real browser."""

from __future__ import annotations

from support import shop
from support.browser import browsing, expect
from support.gateway import answer, staged
from support.keyring import Keyring


async def test_who_has_a_key_gets_in(tmp_path):
    """A person who has a key would see a page that only says that it has no connection, or no page at all."""
    ring = Keyring(tmp_path / "client.keys")
    reads, looks = ring.add("reads", "read"), ring.add("looks", "read", "look")
    keys = {"client_keys_file": ring.path, "headers": reads}
    async with staged(tmp_path, answer, **keys) as stage, browsing(stage.gateway, begin=False) as sight:
        page = sight.page
        await page.goto(f"{stage.gateway.url}/ui")
        await expect(page.locator("#operator-why")).to_contain_text("has a key")
        await page.locator("#key").fill(looks["Authorization"].removeprefix("Bearer "))
        await page.locator("#key").press("Enter")
        await expect(page.locator("#connection")).to_have_text("live")
        await expect(page.locator("#operator-form")).to_be_hidden()
        # The browser is signed in, on whichever page; another one is not.
        same = await page.context.new_page()
        await same.goto(f"{stage.gateway.url}/docs")
        await expect(same.locator(".opblock-tag-section h3").first).to_contain_text(shop.NAME)
        other = await page.context.browser.new_page()
        await other.goto(f"{stage.gateway.url}/docs")
        await other.locator("#key").fill(reads["Authorization"].removeprefix("Bearer "))
        await other.locator("#key").press("Enter")
        await expect(other.locator(".opblock-tag-section h3").first).to_contain_text(shop.NAME)
        # That the first look is refused is no fault of the page's.
        sight.complaints[:] = [one for one in sight.complaints if "401" not in one]
