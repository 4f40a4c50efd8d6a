"""The page at `/ui` in a real browser, before real processes: what an operator sees, and does."""

from __future__ import annotations

import asyncio
import re
import signal

import pytest
from support.browser import browsing, expect
from support.deployment import DEFAULTS, LEDGER, SUM, deployed
from support.operating import secret_file

axe = pytest.importorskip("axe_playwright_python.async_playwright", reason="`nox -s browser` has it")

#: The first failure is the last: a dead letter is made at once.
HOPELESS = {LEDGER: {"max_attempts": 1}}
UNAVAILABLE = 14
#: Whether there is anything on a canvas.
DRAWN = "(one) => one.getContext('2d').getImageData(0, 0, one.width, one.height).data.some((byte) => byte)"


@pytest.fixture
async def office(tmp_path):
    # A lease as deployments have it: a call whose process is late on a busy machine must not run twice.
    async with deployed(tmp_path, SUM, LEDGER, settings=HOPELESS, pace=DEFAULTS) as one:
        yield one


async def die(office, line="broken"):
    """Have a call die that goes well when it is replayed; returns its path."""
    place = await office.queue(LEDGER, line=line, fail_code=UNAVAILABLE, times=1)
    (task,) = await office.ended([place])
    assert task["state"] == "DEAD"
    return place


async def test_a_service_that_is_away_is_seen_and_so_is_what_waits(office):
    """At a glance an operator would see nothing, or what is over."""
    sums = office.parts[-2]
    async with browsing(office) as sight:
        await sight.shows(SUM, "up")
        await sums.stop()
        await sight.shows(SUM, "away")
        places = [await office.queue(SUM, a=2, b=number) for number in range(3)]
        card = sight.card(SUM)
        await expect(card.locator("figcaption b").first).to_have_text("3")
        await expect(card.get_by_role("img", name="Waiting over")).to_have_attribute(
            "aria-label", "Waiting over the last 3 minutes: now 3, at most 3"
        )
        await expect(sight.page.locator("#summary")).to_contain_text("3 services: 1 up, 2 away · 3 waiting, the oldest")
        await expect(sight.page.locator("#said")).to_have_text("SumService is away")
        drawn = await card.locator("canvas").first.evaluate(DRAWN)
        await expect(card.get_by_role("img", name="Oldest over")).to_have_attribute(
            "aria-label", re.compile(r"Oldest over the last 3 minutes: now \d+ s, at most \d+ s")
        )
        rows = sight.page.locator("#tasks-list > li")
        await expect(rows).to_have_count(3)
        await expect(rows.first).to_contain_text("queued")
        sums.start()
        await sight.shows(SUM, "up")
        await office.ended(places)
        await expect(rows.first).to_contain_text("succeeded")
        await expect(card.locator("figcaption b").first).to_have_text("0")

    assert drawn


async def test_a_service_that_hangs_has_a_light_of_its_own(office):
    """What only a restart mends would be shown as what comes back by itself."""
    async with browsing(office) as sight:
        await sight.shows(SUM, "up")
        office.parts[-2].send(signal.SIGSTOP)
        try:
            await sight.shows(SUM, "hung")
        finally:
            office.parts[-2].send(signal.SIGCONT)
        await sight.shows(SUM, "up")


async def test_a_dead_letter_is_replayed_by_keyboard(office):
    """An operator could not see why a call died, nor have it run again; or only with a mouse."""
    place = await die(office)
    async with browsing(office) as sight:
        row = sight.page.locator("#dead-queues li")
        await expect(row).to_contain_text("failed at every attempt")
        await expect(row).to_contain_text("told to fail")
        await row.get_by_role("button", name="Replay LedgerService/Store").focus()
        await sight.page.keyboard.press("Enter")
        await expect(row).to_have_count(0)
        (task,) = await office.ended([place])
        await expect(sight.page.locator("#dead-empty")).to_be_visible()
        focus = await sight.focused()

    assert (task["state"], task["response"]["run"]) == ("SUCCEEDED", 2)
    assert focus == "Dead letters"


async def test_many_dead_letters_are_replayed_at_once(office):
    """After an outage an operator would press a button a thousand times; or press one by mistake."""
    places = [await die(office, f"line {number}") for number in range(3)]
    async with browsing(office) as sight:
        await expect(sight.page.locator("#dead-queues li")).to_have_count(3)
        everything = sight.page.get_by_role("button", name=f"Replay all of {LEDGER}")
        dialog = sight.page.locator("#confirm")
        await everything.click()
        await expect(dialog).to_contain_text(f"Replay 3 dead letters of {LEDGER}?")
        await sight.page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        left = (await office.figures(LEDGER))["dead"]
        await everything.click()
        await dialog.get_by_role("button", name="Replay all").click()
        await expect(sight.page.locator("#dead-queues li")).to_have_count(0)
        tasks = await office.ended(places)

    assert left == 3
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}


async def test_a_full_list_of_dead_letters_does_not_go_stale(office):
    """An operator would press buttons for tasks that another has replayed, and not see what died since."""
    calls = [office.queue(LEDGER, line=f"line {n}", fail_code=UNAVAILABLE, times=1) for n in range(26)]
    places = await asyncio.gather(*calls)
    await office.ended(places)
    async with browsing(office) as sight:
        rows = sight.page.locator("#dead-queues li")
        await expect(rows).to_have_count(25)
        shown = await rows.locator("button.id").all_text_contents()
        (more,) = {place.rpartition("/")[2] for place in places} - {*shown}
        assert (await office.order(f"/v1/tasks/{shown[0]}/purge")).status == 200
        await expect(rows.filter(has_text=more)).to_have_count(1)
        await expect(rows.filter(has_text=shown[0])).to_have_count(0)


async def test_what_may_have_run_is_not_replayed_without_a_question(office):
    """A payment would be made twice by one wrong click."""
    place = (
        await office.ask("POST", f"/{LEDGER}/Record", {"line": "once", "crash": True}, Prefer="respond-async")
    ).headers["Location"]
    await office.ended([place])
    async with browsing(office) as sight:
        row = sight.page.locator("#dead-queues li")
        await expect(row).to_contain_text("may have run: no answer came")
        await row.get_by_role("button", name="Replay LedgerService/Record").click()
        dialog = sight.page.locator("#confirm")
        await expect(dialog).to_contain_text("may have run already")
        safe = await sight.focused()
        await sight.page.keyboard.press("Enter")
        await expect(dialog).to_be_hidden()
        left = (await office.figures(LEDGER))["dead"]

    assert safe == "Leave it"
    assert left == 1


async def test_a_task_tells_its_life(office):
    """Who asks what became of a call would have to read logs."""
    place = await die(office)
    await office.order(f"{place}/replay")
    await office.ended([place])
    async with browsing(office) as sight:
        button = sight.page.locator("#tasks-list").get_by_role("button", name="History of LedgerService/Store")
        await button.focus()
        await sight.page.keyboard.press("Enter")
        dialog = sight.page.get_by_role("dialog", name="A task's life")
        events = dialog.locator(".events b")
        await expect(events).to_have_text(["accepted", "started", "ended", "replayed", "started", "ended"])
        await expect(dialog).to_contain_text('"line":"broken"')
        inside = await sight.focused()
        await sight.page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        back = await sight.focused()

    assert inside == "Close"
    assert back.startswith("History of LedgerService/Store")


async def test_a_queue_is_paused_and_resumed(office):
    """An operator who has to stop the work would need a terminal."""
    async with browsing(office) as sight:
        card = sight.card(SUM)
        await card.get_by_role("button", name=f"Pause {SUM}").click()
        await expect(card.locator(".light.paused")).to_be_visible()
        paused = (await office.figures(SUM))["paused"]
        place = await office.queue(SUM, a=2, b=3)
        await expect(card.locator("figcaption b").first).to_have_text("1")
        await card.get_by_role("button", name=f"Resume {SUM}").click()
        await expect(card.locator(".light.paused")).to_be_hidden()
        (task,) = await office.ended([place])

    assert paused
    assert task["state"] == "SUCCEEDED"


async def test_kept_results_are_dropped_after_a_question(office):
    """An operator whose queue is full of results would need a terminal; or drop them by one wrong click."""
    async with browsing(office) as sight:
        await office.ended([await office.queue(SUM, a=2, b=3)])
        drop = sight.card(SUM).get_by_role("button", name=f"Drop results of {SUM}")
        await expect(drop).to_be_visible()
        await drop.click()
        dialog = sight.page.get_by_role("dialog", name=f"Drop 1 kept result of {SUM}?")
        await expect(dialog).to_be_visible()
        await dialog.get_by_role("button", name="Drop them").click()
        # Those of the last minute stay.
        await expect(sight.page.get_by_text("Dropped 0 results")).to_have_count(1)


async def test_everything_is_reached_by_tab_and_the_focus_stays(office):
    """Without a mouse the page would be of no use; or each second throw its reader back to the top."""
    await die(office)
    async with browsing(office) as sight:
        await expect(sight.page.locator("#dead-queues li")).to_have_count(1)
        names = []
        for _ in range(9):
            await sight.page.keyboard.press("Tab")
            names.append(await sight.focused())
        await sight.page.get_by_role("button", name=f"Pause {SUM}").focus()
        await sight.looks(3)
        kept = await sight.focused()

    assert names[0] == "Skip to the services"
    for name in (f"Pause {SUM}", f"Pause {LEDGER}", f"Replay all of {LEDGER}", "Replay LedgerService", "History of"):
        assert any(one.startswith(name) for one in names), (name, names)
    assert kept == f"Pause {SUM}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
async def test_it_is_readable_for_everybody(office, scheme, width):
    """With weak eyes, a screen reader, a phone, or at night, an operator would miss what is there."""
    await die(office)
    await office.parts[-2].stop()
    await office.queue(SUM, a=2, b=3)
    async with browsing(office, viewport={"width": width, "height": 900}, color_scheme=scheme) as sight:
        await sight.shows(SUM, "away")
        await expect(sight.page.locator("#tasks-list > li")).to_have_count(2)
        await expect(sight.page.locator("#dead-queues li")).to_have_count(1)
        # The rules themselves are put in past the page's own policy, which lets nothing in.
        found = await axe.Axe().run(sight.page)
        over = await sight.sideways()
        await sight.page.locator("#tasks-list .id").first.click()
        await expect(sight.page.locator("#history .events")).to_be_visible()
        in_dialog = await axe.Axe().run(sight.page)
        paper = await sight.page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert found.violations_count == 0, found.generate_report()
    assert in_dialog.violations_count == 0, in_dialog.generate_report()
    assert over <= 0
    assert (paper == "rgb(17, 20, 27)") == (scheme == "dark")


async def test_the_token_lets_an_operator_in(tmp_path):
    """Operators could do nothing on the page; or would leave their token behind in the browser."""
    secret = secret_file(tmp_path / "token", "let me in, for I am an operator")
    async with deployed(tmp_path, SUM, gateway_settings={"operator_token_file": secret}) as office:
        await office.queue(SUM, a=2, b=3)
        async with browsing(office, begin=False) as sight:
            await sight.begin(token="")
            page = sight.page
            await sight.shows(SUM, "up")
            hidden = [
                await page.locator(part).is_visible() for part in ("#tasks", "#dead", f"[aria-label='Pause {SUM}']")
            ]
            await page.get_by_label("Operators' token").fill("let us in, for we are many")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("alert")).to_have_text("The operators' token is wrong.")
            await expect(page.locator("#connection")).to_have_text("live")
            await page.get_by_label("Operators' token").fill("let me in, for I am an operator")
            await page.keyboard.press("Enter")
            await expect(page.locator("#tasks-list > li")).to_have_count(1)
            await page.get_by_role("button", name=f"Pause {SUM}").click()
            await expect(page.get_by_role("button", name=f"Resume {SUM}")).to_be_visible()
            kept = await page.evaluate("[localStorage.length, document.cookie, location.href]")
            await page.reload()
            await expect(page.locator("#tasks-list > li")).to_have_count(1)
            await page.get_by_role("button", name="Forget the token").click()
            await expect(page.locator("#tasks")).to_be_hidden()
            left = await page.evaluate("sessionStorage.length")
            # A browser logs each answer that is an error.
            told, sight.complaints = sight.complaints, []

    assert hidden == [False, False, False]
    assert kept == [0, "", f"{office.url}/ui"]
    assert left == 0
    assert len(told) == 1
    assert "401" in told[0]


async def test_a_gateway_that_was_away_is_followed_again(office):
    """After each deployment of the gateway the page would show the past, as if it were now."""
    async with browsing(office) as sight:
        await sight.shows(SUM, "up")
        office.gateway.kill()
        await expect(sight.page.locator("#connection")).to_contain_text("connection lost")
        await office.parts[-2].stop()
        office.gateway.start()
        await expect(sight.page.locator("#connection")).to_have_text("live")
        await sight.shows(SUM, "away")
        told, sight.complaints = sight.complaints, []

    assert all("ERR_" in one for one in told)
