"""The page at `/ui` in a real browser, before real processes: what an operator sees, and does."""

from __future__ import annotations

import asyncio
import re
import signal
import socket

import pytest
import redis.asyncio
from support.browser import browsing, expect
from support.deployment import DEFAULTS, LEDGER, SUM, deployed
from support.operating import secret_file

from poste.domain.task import DeadReason
from poste.domain.task_id import TaskIds
from poste.queue import record
from poste.queue.keys import QueueKeys
from poste.runtime import secret_files

axe = pytest.importorskip("axe_playwright_python.async_playwright", reason="`nox -s browser` has it")

#: The first failure is the last: a dead letter is made at once.
HOPELESS = {LEDGER: {"max_attempts": 1}}
INTERNAL, UNAVAILABLE = 13, 14
GROUPS, ROWS = "#dead-groups > li", "#dead-groups li.row"
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


async def give_reason(office, place, reason):
    """Have it that a dead letter died for another reason; one that came to it by itself is in other tests."""
    ids = TaskIds(secret_files.id_key(office.folder / "id.key"))
    task_id = ids.read(place.rpartition("/")[2])
    async with redis.asyncio.Redis.from_url(office.redis.url) as store:
        assert await store.hset(QueueKeys(LEDGER).record(task_id.key), record.REASON, reason.value) == 0


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
        row = sight.page.locator(ROWS)
        await expect(sight.page.locator(GROUPS)).to_contain_text("failed at every attempt")
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
    """After an outage an operator would press a button a thousand times; or press one by mistake, for a wrong cause."""
    places = [await die(office, f"line {number}") for number in range(4)]
    other = await die(office, "another cause")
    await give_reason(office, other, DeadReason.OUTCOME_UNKNOWN)
    async with browsing(office) as sight:
        groups, dialog = sight.page.locator(GROUPS), sight.page.locator("#confirm")
        await expect(groups).to_have_count(2)
        # Below many services they would not be seen: the sum leads there.
        await expect(sight.page.get_by_role("link", name="5 dead letters")).to_have_attribute("href", "#dead")
        # The newest first, of the groups and in each.
        await expect(groups.first).to_contain_text("may have run")
        await expect(groups.last).to_contain_text("and 1 older: poste dead")
        await expect(groups.last.locator("li").first).to_contain_text(places[-1].rpartition("/")[2])
        everything = groups.last.get_by_role("button", name="Replay all")
        await everything.click()
        await expect(dialog).to_contain_text("Replay 4 dead letters of LedgerService/Store?")
        await sight.page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        left = (await office.figures(LEDGER))["dead"]
        await everything.click()
        await dialog.get_by_role("button", name="Replay 4").click()
        await expect(groups).to_have_count(1)
        tasks = await office.ended(places)

    assert left == 5
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    assert (await office.figures(LEDGER))["dead"] == 1


async def test_dead_letters_do_not_go_stale_and_are_filtered(office):
    """An operator would press buttons for tasks that another has replayed, or not find the cause among many."""
    places = [await die(office, f"line {number}") for number in range(4)]
    for place, reason in zip(places, DeadReason, strict=False):
        await give_reason(office, place, reason)
    async with browsing(office) as sight:
        groups, rows = sight.page.locator(GROUPS), sight.page.locator(ROWS)
        await expect(groups).to_have_count(4)
        await sight.page.get_by_label("Reason").select_option(label="its service crashed each time")
        await expect(groups).to_have_count(1)
        await sight.page.get_by_label("Of methods named").fill("subtract")
        await expect(sight.page.locator("#dead-empty")).to_have_text("No dead letter is like that.")
        await sight.page.get_by_label("Of methods named").fill("ledger")
        await expect(groups).to_have_count(1)
        await sight.page.get_by_label("Reason").select_option("")
        await expect(rows).to_have_count(4)
        assert (await office.order(f"{places[0]}/purge")).status == 200
        await expect(rows).to_have_count(3)


async def test_what_is_held_aside_is_run_as_it_is(office):
    """A call whose method's schema changed harmlessly would need a terminal to be run."""
    place = await die(office)
    await give_reason(office, place, DeadReason.SCHEMA_CHANGED)
    async with browsing(office) as sight:
        await expect(sight.page.locator(GROUPS)).to_contain_text("held aside: its method's schema changed")
        await sight.page.get_by_role("button", name="Replay as it is LedgerService/Store").click()
        dialog = sight.page.locator("#confirm")
        await expect(dialog).to_contain_text("by the schema of today")
        await dialog.get_by_role("button", name="Replay it").click()
        # Else what is read may be the end that it had before.
        await expect(sight.page.locator(GROUPS)).to_have_count(0)
        (task,) = await office.ended([place])

    assert task["state"] == "SUCCEEDED"


async def test_direct_calls_are_shown(office):
    """A service with a hundred calls a second would look idle, and one that fails as well as any."""
    async with browsing(office) as sight:
        await sight.shows(SUM, "up")
        for number in range(10):
            await office.call(SUM, a=number, b=3)
            await office.call(LEDGER, line="bad", fail_code=INTERNAL)
        figures = {name: sight.card(name).locator("dl.direct dd") for name in (SUM, LEDGER)}
        await expect(figures[SUM].nth(0)).not_to_have_text(re.compile(r"^[0\u2013]$"))
        await expect(figures[SUM].nth(1)).to_have_text("0 %")
        await expect(figures[SUM].nth(2)).to_have_text(re.compile(r"^[\d.]+ m?s$"))
        await expect(figures[LEDGER].nth(1)).to_have_text("100 %")
        await expect(sight.page.locator("#services-cover")).to_contain_text(f"this gateway, {socket.gethostname()}")


async def test_what_is_away_comes_first(office):
    """Of three hundred services an operator would look for the one that is away."""
    async with browsing(office) as sight:
        last = sight.page.locator("#services-list > li").nth(2)
        await expect(last).to_have_attribute("data-key", LEDGER)
        await office.parts[-1].stop()
        await expect(last).to_have_attribute("data-key", SUM)
        # A button does not move away under the one who is about to press it.
        await sight.page.get_by_role("button", name=f"Pause {LEDGER}").focus()
        office.parts[-1].start()
        await sight.shows(LEDGER, "up")
        await sight.looks(1)
        held = await last.get_attribute("data-key")
        await sight.page.locator("#task-id").focus()
        await expect(last).to_have_attribute("data-key", LEDGER)

    assert held == SUM


async def test_a_task_is_found_by_its_id(office):
    """Whom a client gives a task's id would need a terminal to see what became of it, and what it was called with."""
    place = await die(office)
    async with browsing(office) as sight:
        await sight.page.get_by_label("A task's id").fill(f" {place} ")
        await sight.page.keyboard.press("Enter")
        dialog = sight.page.get_by_role("dialog", name="A task's life")
        await expect(dialog).to_contain_text("UNAVAILABLE: told to fail")
        await expect(dialog.locator("pre").first).to_contain_text('"line": "broken"')
        await expect(dialog.locator(".events b")).to_have_text(["accepted", "started", "ended"])
        await sight.page.keyboard.press("Escape")
        await sight.page.get_by_label("A task's id").fill("made-up")
        await sight.page.get_by_role("button", name="Find task").click()
        await expect(dialog).to_contain_text("task")
        # A browser logs each answer that is an error.
        told, sight.complaints = sight.complaints, []

    assert all("404" in one for one in told)


async def test_what_a_call_holds_is_shown_and_never_run(office):
    """A client would act with the rights of the operator who looks at its call."""
    markup = "<img src=x onerror=this.id='run'><b id=injected>"
    place = await die(office, markup)
    async with browsing(office) as sight:
        await expect(sight.page.locator(ROWS)).to_have_count(1)
        await sight.page.get_by_label("A task's id").fill(place)
        await sight.page.keyboard.press("Enter")
        dialog = sight.page.get_by_role("dialog", name="A task's life")
        await expect(dialog.locator("pre").first).to_contain_text(markup)
        found = await sight.page.locator("#injected, #run, img[src=x]").count()

    assert found == 0


async def test_what_may_have_run_is_not_replayed_without_a_question(office):
    """A payment would be made twice by one wrong click."""
    place = (
        await office.ask("POST", f"/{LEDGER}/Record", {"line": "once", "crash": True}, Prefer="respond-async")
    ).headers["Location"]
    await office.ended([place])
    async with browsing(office) as sight:
        await expect(sight.page.locator(GROUPS)).to_contain_text("may have run: no answer came")
        row = sight.page.locator(ROWS)
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
        await expect(sight.page.locator(ROWS)).to_have_count(1)
        names = []
        for _ in range(11):
            await sight.page.keyboard.press("Tab")
            names.append(await sight.focused())
        await sight.page.get_by_role("button", name=f"Pause {SUM}").focus()
        await sight.looks(3)
        kept = await sight.focused()

    assert names[0] == "Skip to the services"
    for name in (f"Pause {SUM}", f"Pause {LEDGER}", "Find task", "Replay LedgerService", "History of"):
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
        await expect(sight.page.locator(ROWS)).to_have_count(1)
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


async def test_an_operator_signs_in_and_out(tmp_path):
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
            await page.get_by_label("Key, or operators' token").fill("let us in, for we are many")
            await page.keyboard.press("Enter")
            await expect(page.get_by_role("alert")).to_have_text("This gateway does not know the key.")
            await expect(page.locator("#connection")).to_have_text("live")
            await page.get_by_label("Key, or operators' token").fill("let me in, for I am an operator")
            await page.keyboard.press("Enter")
            await expect(page.locator("#tasks-list > li")).to_have_count(1)
            await page.get_by_role("button", name=f"Pause {SUM}").click()
            await expect(page.get_by_role("button", name=f"Resume {SUM}")).to_be_visible()
            await expect(page.locator("#operator-why")).to_have_text("Signed in as operators.")
            kept = await page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
            await page.reload()
            await expect(page.locator("#tasks-list > li")).to_have_count(1)
            (cookie,) = await page.context.cookies()
            await page.get_by_role("button", name="Sign out").click()
            await expect(page.locator("#tasks")).to_be_hidden()
            left = await page.context.cookies()
            # A browser logs each answer that is an error.
            told, sight.complaints = sight.complaints, []

    assert hidden == [False, False, False]
    assert kept == [0, 0, "", f"{office.url}/ui"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert left == []
    assert len(told) == 1
    assert "401" in told[0]


async def test_no_other_origin_acts_as_who_signed_in(office):
    """A page on another port of the host, which gets the host's cookies, would pause queues, or read tasks."""
    evil = await asyncio.start_server(_blank, "127.0.0.1", 0)
    port, place = evil.sockets[0].getsockname()[1], f"{office.url}/v1/queues/{SUM}/pause"
    async with evil, browsing(office) as sight:
        await expect(sight.page.locator("#operator-why")).to_have_text("Signed in as operators.")
        shown = sight.page.url
        other = await sight.page.context.new_page()
        await other.goto(f"http://127.0.0.1:{port}/")
        async with other.expect_response(place) as fetched:
            asked = "{method: 'POST', mode: 'no-cors', credentials: 'include'}"
            await other.evaluate(f"fetch('{place}', {asked}).then(() => 0, () => 0)")
        by_fetch = await fetched.value
        async with other.expect_response(place) as posted:
            await other.set_content(f"<form method=post action='{place}'></form>")
            await other.evaluate("document.forms[0].submit()")
        by_form = await posted.value

    assert shown == f"{office.url}/ui"
    # A host's other ports are the same site to a browser: it sends the cookie, and it is refused. Without it: 401.
    assert [by_fetch.status, by_form.status] == [403, 403]
    assert (await office.figures(SUM))["paused"] is False


async def _blank(reader, writer):
    """Answer a request with an empty page."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<!doctype html>")
    await writer.drain()
    writer.close()


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
