"""What a callback may be: which URLs are let in, where they may lead, and how what is sent there is signed."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
import time
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from support.operating import secret_file
from support.receiver import receiving
from support.waiting import until
from yarl import URL

from poste.domain.errors import StartError
from poste.domain.task_id import TaskIds
from poste.runtime import leaving
from poste.runtime.trust import trusting
from poste_gateway.callbacks.addresses import CheckedResolver, ForbiddenAddressError, check, connecting
from poste_gateway.callbacks.deliverer import Deliverer
from poste_gateway.callbacks.signing import Signer
from poste_gateway.calls.offload import Offload
from poste_gateway.http.callback_urls import CallbackUrls

OLD, NEW = ("whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
BODY = b'{"type":"task.ended"}'


@pytest.mark.parametrize("known", [OLD, NEW])
def test_a_receiver_verifies_by_either_secret_while_one_is_replaced(tmp_path: Path, known: str) -> None:
    """Receivers could not be given a new secret one after the other."""
    standardwebhooks = pytest.importorskip("standardwebhooks")
    signer = Signer.of_file(secret_file(tmp_path / "secrets", f"{NEW}\n{OLD}\n"))
    headers = signer.headers("msg_1", int(time.time()), BODY)

    assert standardwebhooks.Webhook(known).verify(BODY, headers) == {"type": "task.ended"}
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(known).verify(BODY + b" ", headers)


@pytest.mark.parametrize("content", ["", "secret", "whsec_", "whsec_c2hvcnQ=", f"{OLD}\n" * 4, f"{OLD}\nwhsec_*"])
def test_a_file_without_secrets_is_refused_at_the_start(tmp_path: Path, content: str) -> None:
    """What is sent would be signed by what can be guessed, or the log would have a secret in it."""
    with pytest.raises(StartError) as raised:
        Signer.of_file(secret_file(tmp_path / "secrets", content))

    assert "POSTE_CALLBACK_SECRET_FILE" in str(raised.value)
    assert OLD not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://hooks.example/a?b=c", True),
        ("https://HOOKS.example:443/", True),
        ("https://hooks.example./", True),
        ("http://hooks.example/", False),
        ("https://hooks.example:8443/", False),
        ("https://a.hooks.example/", False),
        ("https://hooks.example.evil.example/", False),
        ("https://a.b.inner.example:8443/x", True),
        ("https://inner.example:8443/x", False),
        ("https://evilinner.example:8443/x", False),
        ("http://anything.example:9000/", True),
        (f"http://{'a' * 63}.b.{'c' * 63}:9000/", True),
        (f"http://{'a.' * 125}aaa.:9000/", True),
        ("http://[2001:db8::1]:9000/", True),
    ],
)
def test_urls_of_named_origins_alone_are_told(url: str, named: bool) -> None:
    """A client could have this gateway call whom its operator does not want called."""
    urls = CallbackUrls(["https://hooks.example", "https://*.inner.example:8443", "http://*:9000"])

    assert urls.wrong_with(url) is None
    assert urls.allows(url) is named
    assert not CallbackUrls([]).allows(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks.example", "ftp://hooks.example/", "https://", "https:///x", "https://hooks.example/#x"),
        *("https://user@hooks.example/", "https://hooks.example:99999/", "https://hooks.example:x/"),
        *("https://hooks.example\\@evil.example/", "https://hooks example/", "https://hööks.example/"),
        *("https://hooks.example/" + "x" * 1000, "https://[::1", "https://a|b/"),
        *("https://127.1/", "https://2130706433/", "https://0177.0.0.1/", "https://127.0.0.1./"),
        # What no resolver takes for a name.
        *("https://a..example/", "https://.example/", "https://hooks.example../", "https://./", "https://beef..cafe/"),
        *(f"https://{'a' * 64}.example/", f"https://{'a.' * 125}aaaa/"),
    ],
)
def test_what_is_no_url_is_named(url: str) -> None:
    """A mistake would show only when a task has ended, in the operator's log."""
    assert CallbackUrls.wrong_with(url) is not None


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.1.2.3"),
        *("224.0.0.1", "255.255.255.255", "168.63.129.16", "192.0.0.192", "::1", "::", "fe80::1%eth0", "fd00:ec2::254"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1"),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    """A client could read what only this gateway reaches: a cloud's credentials, the store, the admin ports."""
    with pytest.raises(ForbiddenAddressError):
        check("host.example", address, ())


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"])
def test_public_addresses_are_let_through(address: str) -> None:
    """Nothing could be told."""
    check("host.example", address, ())


def test_named_networks_are_let_through_and_no_others() -> None:
    """A deployment of inner services could not be told, or all of its network could be."""
    allowed = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    check("host.example", "10.1.2.3", allowed)
    check("host.example", "::ffff:10.1.2.3", allowed)
    check("host.example", "fd00::1", allowed)
    with pytest.raises(ForbiddenAddressError):
        check("host.example", "10.2.0.1", allowed)


async def test_a_name_is_judged_by_all_of_its_addresses_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means another address the second time would lead into the inner network."""
    answers = [["93.184.215.14"], ["93.184.215.14", "127.0.0.1"], ["169.254.169.254"]]

    def getaddrinfo(_: str, port: int, *__: Any, **___: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = CheckedResolver((), limit=1)
    (found,) = await resolver.resolve("host.example", 443)
    assert (found["host"], found["port"]) == ("93.184.215.14", 443)
    for _ in range(2):
        with pytest.raises(ForbiddenAddressError):
            await resolver.resolve("host.example", 443)


async def test_what_is_no_name_is_a_name_that_is_not_found() -> None:
    """Each try would be a defect of the gateway's in its log."""
    with pytest.raises(OSError, match="label"):
        await CheckedResolver((), limit=1).resolve("a..example", 443)


async def test_names_whose_servers_are_silent_keep_nothing_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's names could take all threads in which the gateway reads files, and hold up its stop."""
    answered = threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        answered.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = CheckedResolver((), limit=4)
    asked = [asyncio.create_task(resolver.resolve(f"silent-{number}.example", 443)) for number in range(40)]
    try:
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "read"), 20) == "read"
        await resolver.close()
        # The process ends though they don't.
        stuck = {f"the look-up of silent-{number}.example" for number in range(4)}
        assert stuck <= {*leaving.left_behind()}
    finally:
        answered.set()
        for one in asked:
            one.cancel()
        await asyncio.wait(asked)
    await until(lambda: not stuck & {*leaving.left_behind()})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "[::1]"])
async def test_no_connection_goes_where_none_may(host: str) -> None:
    """An address that is not resolved, or a name that means an inner one, would be connected to all the same."""
    async with receiving() as receiver:
        port = URL(receiver.url).port
        trust = trusting(None, "")
        async with (
            connecting((), limit=1, trust=trust) as connector,
            aiohttp.ClientSession(connector=connector) as session,
        ):
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.post(f"http://{host}:{port}/")
        assert receiver.messages == []
        loopback = (ip_network("127.0.0.0/8"),)
        connecting_there = connecting(loopback, limit=1, trust=trust)
        async with connecting_there as connector, aiohttp.ClientSession(connector=connector) as session:
            if host == "127.0.0.1":
                assert (await session.post(f"http://{host}:{port}/")).status == 200


async def test_nothing_is_told_before_the_catalogue_is_there() -> None:
    """A gateway that has just started would tell receivers that their answers can't be written."""
    asked = asyncio.Event()

    async def lease_callbacks(*_: object) -> list[object]:
        asked.set()
        await asyncio.Event().wait()
        return []

    catalogue: Any = SimpleNamespace(unready="no catalogue yet", services={})
    mom: Any = SimpleNamespace(lease_callbacks=lease_callbacks)
    signer, urls = Signer([bytes(32)]), CallbackUrls([])
    deliverer = Deliverer(
        mom, catalogue, TaskIds(bytes(32)), Offload(0), urls=urls, signer=signer, networks=(), trust=trusting(None, "")
    )
    running = asyncio.create_task(deliverer.run())
    await asyncio.sleep(0)
    assert not asked.is_set()
    catalogue.unready = None
    await asyncio.wait_for(asked.wait(), 20)

    running.cancel()
    await asyncio.wait({running})
