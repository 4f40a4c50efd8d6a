"""Under which names a gateway answers that asks nobody for a key, and to whose pages. A real gateway on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
from support.gateway import Stage, answer, staged
from support.rest import ORDER, PLACE, is_problem

from poste.runtime.settings import GatewaySettings
from poste_gateway.http.hosts import Hosts

pytestmark = pytest.mark.asyncio(loop_scope="module")
OURS = ["localhost", "localhost:8080", "LocalHost.", "app.localhost:3000", "127.0.0.1", "127.8.8.8:80", "[::1]:8080"]
OTHERS = ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost"]
NO_HOSTS = ["0.0.0.0:8080", "10.0.0.7", "[::2]", "", "a b", "localhost:x", "user@localhost", "127.0.0.1, evil.example"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    settings = {"hosts": "api.example, *.inside.example", "cors_origins": "https://app.example"}
    async with staged(tmp_path_factory.mktemp("hosts"), answer, **settings) as one:
        yield one


@pytest.mark.parametrize("host", [*OURS, "api.example", "API.example:443", "a.b.inside.example"])
async def test_it_answers_under_its_own_names(stage: Stage, host: str) -> None:
    """Who calls it by loopback, or a proxy that passes its own name on, would be turned away."""
    assert (await stage.gateway.post(PLACE, ORDER, Host=host)).status == 200


@pytest.mark.parametrize("host", [*OTHERS, *NO_HOSTS, "inside.example", "x.api.example"])
async def test_a_page_whose_name_leads_to_loopback_gets_nothing(stage: Stage, host: str) -> None:
    """A web page would call services, and read their answers, by a name of its own that means 127.0.0.1 (rebinding)."""
    before = len(stage.shops[0].ran)
    for verb, path, body in (("POST", PLACE, ORDER), ("GET", "/v1/services", None), ("GET", "/ui", None)):
        is_problem(await stage.gateway.ask(verb, path, body, Host=host), 421, "misdirected", "PERMISSION_DENIED")
    assert len(stage.shops[0].ran) == before
    assert (await stage.gateway.get("/livez", Host=host)).status == 200


@pytest.mark.parametrize(
    ("origin", "lets"),
    [
        ("http://localhost:3000", True),
        ("https://app.example", True),
        ("https://api.example", True),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
    ],
)
async def test_no_other_page_calls_what_needs_no_leave_of_cors(stage: Stage, origin: str, lets: bool) -> None:
    """A call without a body is one that any web page may send: it would run, though the page can't read the answer."""
    before = len(stage.shops[0].ran)
    reply = await stage.gateway.ask("POST", PLACE, Origin=origin)

    assert len(stage.shops[0].ran) == before + lets
    if not lets:
        is_problem(reply, 403, "cross-origin", "PERMISSION_DENIED")


LOOPBACK: Mapping[str, object] = {"host": "127.0.0.1"}
BEYOND: Mapping[str, object] = {"host": "0.0.0.0", "anonymous_calls": True}  # noqa: S104 - nothing listens
TLS = {"tls_port": 8443, "tls_certificate_file": Path("x"), "tls_key_file": Path("x")}


@pytest.mark.parametrize(
    ("settings", "closed", "judges"),
    [
        (LOOPBACK, False, True),
        (LOOPBACK, True, False),
        ({**LOOPBACK, "anonymous_calls": True}, False, False),
        ({**LOOPBACK, **TLS}, False, False),
        ({**LOOPBACK, "hosts": "*"}, False, False),
        ({"host": "::1"}, False, True),
        (BEYOND, False, False),
        ({**BEYOND, "hosts": "api.example"}, False, True),
        ({**LOOPBACK, "hosts": "api.example"}, True, True),
    ],
)
async def test_who_is_asked_by_any_name_goes_on_being_so(
    settings: Mapping[str, object], closed: bool, judges: bool
) -> None:
    """A container, or a gateway behind what balances several, would refuse every request; or one on loopback none."""
    assert (Hosts.of(GatewaySettings.model_validate(settings), closed=closed) is not None) is judges


@pytest.mark.parametrize("hosts", ["https://api.example", "api.example:80", "API.example", "a*", "*.*", "a b"])
async def test_what_no_host_is_called_is_refused_at_the_start(hosts: str) -> None:
    """A setting that matches nothing would be found out by its clients."""
    with pytest.raises(ValueError, match="must be a name alone"):
        GatewaySettings.model_validate({"hosts": hosts})
