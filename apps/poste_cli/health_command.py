"""`poste health`: a container's health check, so that the image needs neither a shell nor curl."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from poste.domain.shown import visible
from poste_cli import probing
from poste_cli.exits import FAILURE

if TYPE_CHECKING:
    import grpc

_TIMEOUT_SECONDS: Final = 4.0
_GRPC: Final = "grpc://"
#: Set where the parts know each other by certificates.
_MTLS: Final = "POSTE_MTLS_CA_FILE"


@click.command()
@click.argument("url", envvar="POSTE_HEALTH")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=_TIMEOUT_SECONDS, show_default=True,
    metavar="SECONDS", help="How long the answer may take.",
)  # fmt: skip
def health(url: str, timeout: float) -> None:
    """Ask one part whether it is well: http://HOST:PORT/readyz, or grpc://HOST:PORT for gRPC's health service.

    URL is POSTE_HEALTH unless given.

    Exit code: 0 it is, 1 it is not or does not answer.
    """
    trouble = _ask_grpc(url.removeprefix(_GRPC), timeout) if url.startswith(_GRPC) else _ask_http(url, timeout)
    if trouble is not None:
        click.echo(visible(f"{url}: {trouble}"), err=True)
        sys.exit(FAILURE)


def _ask_http(url: str, timeout: float) -> str | None:
    if not url.startswith("http://"):
        raise click.UsageError(f"{url!r} is neither http:// nor grpc://")
    return probing.trouble(url, timeout)


def _ask_grpc(target: str, timeout: float) -> str | None:
    import grpc  # noqa: PLC0415 - the other kind of check starts faster without it
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415 - the same

    with _opened(target) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            return str(error.code().name)
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return None if name == "SERVING" else name


def _opened(target: str) -> grpc.Channel:
    """Open a channel to a part whose settings are in this very environment: it has the names that are shown to it."""
    import grpc  # noqa: PLC0415 - loaded already

    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if _MTLS not in os.environ:
        return grpc.insecure_channel(target, options)
    from poste.rpc.channels import is_named  # noqa: PLC0415 - where nothing is secured the check starts faster
    from poste.rpc.credentials import Credentials  # noqa: PLC0415 - the same
    from poste.runtime.environment import load  # noqa: PLC0415 - the same
    from poste.runtime.settings import Settings  # noqa: PLC0415 - the same

    if (credentials := Credentials.of(load(Settings))) is None:
        return grpc.insecure_channel(target, options)
    secured = credentials.towards(min(credentials.names, default=""))
    return grpc.secure_channel(target, secured.credentials, [*options, is_named(secured.peer)])
