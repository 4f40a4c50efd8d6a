"""`poste health`: a container's health check, so that the image needs neither a shell nor curl."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from poste.domain.shown import visible
from poste.rpc import peer_names
from poste.runtime import x509
from poste_cli import probing
from poste_cli.exits import FAILURE

if TYPE_CHECKING:
    import grpc

_TIMEOUT_SECONDS: Final = 4.0
_GRPC: Final = "grpc://"
#: Where the parts know each other by certificates, a part has these in its environment.
_MTLS: Final = ("POSTE_MTLS_CA_FILE", "POSTE_MTLS_KEY_FILE", "POSTE_MTLS_CERTIFICATE_FILE")


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

    try:
        opened = _opened(target)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    with opened as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError as error:
            return str(error.code().name)
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return None if name == "SERVING" else name


def _opened(target: str) -> grpc.Channel:
    """Open a channel to a part whose settings are in this very environment: it has the names that are shown to it.

    The part reads its settings as a whole, and follows these files. That would cost a check, which is made every few
    seconds in each container, three times what gRPC does.

    Raises:
        OSError: One of the files can't be read.
    """
    import grpc  # noqa: PLC0415 - loaded already

    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    files = [Path(named) for name in _MTLS if (named := os.environ.get(name))]
    if len(files) < len(_MTLS):
        return grpc.insecure_channel(target, options)
    ca, key, certificate = (file.read_bytes() for file in files)
    options.append(peer_names.is_named(min(x509.names(certificate), default="")))
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, certificate), options)
