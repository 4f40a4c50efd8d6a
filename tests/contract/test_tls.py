"""The gateway as its own TLS server: what browsers and clients of the open net meet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import subprocess
import time

import aiohttp
import pytest
from prometheus_client import REGISTRY
from support import shop
from support.gateway import FakeMom, answer, serving_mom, serving_shop
from support.operating import TOKEN, secret_file
from support.ports import free_port
from support.self_signed import make_certificate
from support.waiting import until

from poste.domain.errors import StartError
from poste.runtime.settings import GatewaySettings
from poste_gateway.__main__ import running
from poste_gateway.http.responses import Response
from poste_gateway.http.server import Patience, serving
from poste_gateway.http.tls import Certificate


@contextlib.asynccontextmanager
async def serving_tls(folder, **settings):
    """Run a gateway with both its ports; yields the TLS port, the plain port and a session that trusts it."""
    certificate, key = make_certificate(folder)
    plain = free_port()
    async with serving_shop(answer) as replica, serving_mom(FakeMom(shop.entry(replica.target))) as mom_port:
        chosen = GatewaySettings(
            id_key_file=folder / "id.key",
            mom=f"127.0.0.1:{mom_port}",
            port=plain,
            tls_port=0,
            tls_certificate_file=certificate,
            tls_key_file=key,
            grace_seconds=1.0,
            **settings,
        )
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(certificate)))
        async with running(chosen) as port, aiohttp.ClientSession(connector=connector) as session:

            async def ready():
                async with session.get(f"https://localhost:{port}/readyz") as response:
                    return response.status == 200

            await until(ready)
            yield port, plain, session


async def test_by_tls_no_host_beside_this_one_signs_a_browser_in(tmp_path):
    """It can set cookies for this one: an operator would act, and look things up, as whom that host likes."""
    token = secret_file(tmp_path / "operator.token")
    async with serving_tls(tmp_path, operator_token_file=token) as (port, _, session):
        url, own = f"https://localhost:{port}", {"Sec-Fetch-Site": "same-origin"}
        async with session.post(f"{url}/ui/session", json={"key": TOKEN}, headers=own) as response:
            (cookie,) = response.cookies.values()
        session.cookie_jar.clear()
        statuses = []
        for name in (cookie.key, cookie.key.removeprefix("__Host-")):
            sent = {**own, "Cookie": f"{name}={cookie.value}"}
            async with session.post(f"{url}/v1/queues/{shop.NAME}/pause", headers=sent) as response:
                statuses.append(response.status)

    assert cookie.key.startswith("__Host-")
    assert cookie["secure"]
    assert statuses == [200, 401]


async def test_calls_are_answered_by_tls_and_the_plain_port_leads_there(tmp_path):
    """Else what clients send is read on the way, or a call by http is lost instead of sent on."""
    async with serving_tls(tmp_path) as (port, plain, session):
        async with session.post(f"https://localhost:{port}/v1/quotes", json={}) as response:
            assert response.status == 200
            assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
        url = f"http://localhost:{plain}/v1/quotes?a=b"
        async with session.post(url, json={}, allow_redirects=False) as response:
            assert response.status == 308
            assert response.headers["Location"] == f"https://localhost:{port}/v1/quotes?a=b"
            # By http anybody could have said it.
            assert "Strict-Transport-Security" not in response.headers
        async with session.post(f"http://localhost:{plain}/v1/quotes", json={}) as response:
            assert response.status == 200
        for path in ("/livez", "/readyz"):
            async with session.get(f"http://localhost:{plain}{path}", allow_redirects=False) as response:
                assert response.status == 200, path


async def test_a_redirect_names_the_port_that_the_deployment_publishes(tmp_path):
    """Else clients are sent to the container's own port, where nothing answers them."""
    async with serving_tls(tmp_path, tls_public_port=443) as (_, plain, session):
        url = f"http://localhost:{plain}/v1/services"
        for host in ("localhost", "LOCALHOST", "127.0.0.1"):
            async with session.get(url, allow_redirects=False, headers={"Host": f"{host}:80"}) as response:
                assert response.headers["Location"] == f"https://{host}/v1/services"
        for host in ("", "a b", "a/b", "user@host", "[zz]"):
            async with session.get(url, allow_redirects=False, headers={"Host": host}) as response:
                assert response.status == 400, host


async def test_a_redirect_leads_to_no_host_but_the_certificates(tmp_path):
    """A cache before it would hand the redirect of one request, with a `Host` made up, to everybody who comes after."""
    async with serving_tls(tmp_path) as (_, plain, session):
        url = f"http://localhost:{plain}/v1/services"
        for host in ("elsewhere.example", "127.0.0.2", "[::1]", "localhost.elsewhere.example", "a.localhost"):
            async with session.get(url, allow_redirects=False, headers={"Host": host}) as response:
                assert response.status == 400, host
                assert "Location" not in response.headers
                assert host in (await response.json())["detail"]


@pytest.mark.parametrize(
    ("named", "host", "fits"),
    [
        ("api.poste.example", "API.poste.example", True),
        ("*.poste.example", "api.poste.example", True),
        ("*.poste.example", "a.b.poste.example", False),
        ("*.poste.example", "poste.example", False),
        ("poste.example", "127.0.0.1", True),
    ],
)
def test_whom_a_certificate_is_for(tmp_path, named, host, fits):
    """A client would be led to where it can't verify the gateway, or not be led where it can."""
    assert Certificate(*make_certificate(tmp_path, named)).is_for(host) is fits


@pytest.mark.parametrize("days", [2, 20_000])
def test_when_a_certificate_expires_is_told(tmp_path, days):
    """The alert would come too late, or never; in the years from 2050 on they spell it in another way."""
    expiry = time.time() + days * 86_400
    certificate, key = make_certificate(tmp_path, days=days)
    later, _ = make_certificate(tmp_path / "ca", days=days + 1)
    certificate.write_bytes(certificate.read_bytes() + later.read_bytes())
    Certificate(certificate, key)

    assert REGISTRY.get_sample_value("poste_certificate_expiry_timestamp_seconds") == pytest.approx(expiry, abs=60)


async def test_a_new_certificate_is_served_without_a_restart(tmp_path):
    """Else each renewal costs a restart, or is forgotten until clients refuse the old one."""
    certificate = Certificate(*make_certificate(tmp_path))
    keeping = asyncio.create_task(certificate.keep(look_seconds=0.05))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=certificate.context)
    port = server.sockets[0].getsockname()[1]

    try:
        first = await served(port)
        (tmp_path / "gateway.key").write_text("half written")
        await asyncio.sleep(0.2)
        assert await served(port) == first

        new = ssl.PEM_cert_to_DER_cert(make_certificate(tmp_path)[0].read_text())
        assert new != first

        async def renewed():
            return await served(port) == new

        await until(renewed)
    finally:
        keeping.cancel()
        server.close()
        await server.wait_closed()


async def test_a_running_gateway_looks_for_a_new_certificate(tmp_path):
    """Else it serves the old one until it is restarted."""
    async with serving_tls(tmp_path) as (port, _, _):
        new = ssl.PEM_cert_to_DER_cert(make_certificate(tmp_path)[0].read_text())

        async def renewed():
            return await served(port) == new

        await until(renewed)


async def served(port: int) -> bytes:
    """Return the certificate that a new connection is served with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


async def test_old_tls_and_plain_http_are_turned_away_quietly(tmp_path, caplog):
    """Else old clients talk by what is broken, or every scan of the port fills the log with tracebacks."""
    async with serving_tls(tmp_path) as (port, _, _):
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=old)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("fault", ["missing", "encrypted"])
async def test_a_certificate_that_can_not_be_used_keeps_it_from_starting(tmp_path, fault):
    """Else a gateway runs that no client can talk to, or that waits for a password at a terminal."""
    certificate, key = make_certificate(tmp_path)
    if fault == "missing":
        key.unlink()
    if fault == "encrypted":
        locked = tmp_path / "locked.key"
        command = ["openssl", "pkey", "-in", str(key), "-aes128", "-passout", "pass:secret", "-out", str(locked)]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        key = locked
    settings = GatewaySettings(
        id_key_file=tmp_path / "id.key",
        port=0,
        tls_port=0,
        tls_certificate_file=certificate,
        tls_key_file=key,
    )

    with pytest.raises(StartError, match="TLS"):
        async with running(settings):
            pass


def test_a_certificate_without_its_key_keeps_it_from_starting(tmp_path):
    """Else a gateway runs that no client can talk to."""
    with pytest.raises(StartError, match=r"POSTE_TLS_PORT needs .*POSTE_TLS_KEY_FILE"):
        GatewaySettings(tls_port=0, tls_certificate_file=tmp_path / "tls.pem")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_head_that_does_not_come_whole_by_tls_ends_its_connection(tmp_path, sent):
    """Else who has shaken hands may hold the connection for nothing."""
    certificate, key = make_certificate(tmp_path)

    async def handle(_):
        return Response()

    async with serving(
        handle,
        "127.0.0.1",
        0,
        max_body_bytes=1,
        grace_seconds=1.0,
        patience=Patience(head_seconds=0.3),
        tls=Certificate(certificate, key).context,
    ) as port:
        trusting = ssl.create_default_context(cafile=str(certificate))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        writer.write(sent)

        assert await asyncio.wait_for(reader.read(), 15) == b""

        writer.close()
