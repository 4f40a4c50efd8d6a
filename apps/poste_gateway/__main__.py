"""The gateway's process: everything is wired here, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, Self

from poste.domain.errors import StartError
from poste.domain.task_id import TaskIds
from poste.rpc.credentials import Credentials, duties
from poste.rpc.target_trust import TargetTrust
from poste.runtime import admin, lifecycle, logs, program, secret_files
from poste.runtime.addresses import authority
from poste.runtime.settings import GatewaySettings
from poste.runtime.trust import trusting
from poste_gateway import id_keys
from poste_gateway.access.audit import AuditLog
from poste_gateway.access.client_keys import ClientKeys
from poste_gateway.callbacks.deliverer import Deliverer
from poste_gateway.callbacks.signing import Signer
from poste_gateway.calls.batch import Batches
from poste_gateway.calls.call import CallServices
from poste_gateway.calls.enqueuer import Enqueuer
from poste_gateway.calls.offload import Offload
from poste_gateway.calls.streams import OpenStreams
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.catalogue.catalogue_cache import CatalogueCache
from poste_gateway.clock import Clock
from poste_gateway.dispatcher import Dispatcher
from poste_gateway.figures import Figures
from poste_gateway.http import server
from poste_gateway.http.callback_urls import CallbackUrls
from poste_gateway.http.door import Door
from poste_gateway.http.hosts import Hosts
from poste_gateway.http.https_redirect import Redirect, strict
from poste_gateway.http.server import Handle, Patience
from poste_gateway.http.tls import Certificate
from poste_gateway.limits.capacity import Capacity
from poste_gateway.mom import Mom
from poste_gateway.openapi import shared
from poste_gateway.openapi.documents import Documents
from poste_gateway.own_routes import OwnRoutes
from poste_gateway.task_routes import TaskRoutes
from poste_gateway.tasks.listings import Listings
from poste_gateway.tasks.operators import OperatorRoutes
from poste_gateway.tasks.task_reader import TaskReader
from poste_gateway.ui.broadcaster import Broadcaster
from poste_gateway.ui.pages import Pages
from poste_gateway.ui.snapshot import Snapshots

if TYPE_CHECKING:
    from poste_gateway.access.tokens import Tokens

#: The catalogue's copy beside the key that signs task ids, unless the settings name another file.
_CATALOGUE_COPY: Final = "catalogue.copy"
#: How long the listener waits for the catalogue, in seconds: a client whose connection is refused may go to another
#: gateway, one that gets "not ready" has its answer. Longer than the copy takes to stand in for the middleware.
_BEGIN_SECONDS: Final = 2.0

_log = logs.get("gateway")


@contextlib.asynccontextmanager
async def running(settings: GatewaySettings) -> AsyncIterator[int]:
    """Run a gateway while the body runs; yields the port that it listens on, which is the TLS one if there is one.

    Args:
        settings: The gateway's settings.

    Raises:
        StartError: The port is taken, or the key that signs task ids, the operators' token, the clients' keys or the
            certificate can't be had, or the audit log not be written to.
    """
    certificate = _certificate(settings)
    ids, sessions = id_keys.load(settings.id_key_file)
    keys = None if settings.client_keys_file is None else ClientKeys(settings.client_keys_file)
    token = settings.operator_token_file
    operator_token = None if token is None else secret_files.operator_token(token)
    tokens = _tokens(settings)
    door = Door(keys, operator_token, sessions, anonymous=settings.anonymous_calls, tokens=tokens)
    audit = AuditLog(settings.audit_file)
    async with (
        asyncio.TaskGroup() as duties,
        _Gateway(settings, ids, keys=keys, tokens=tokens, door=door, audit=audit, duties=duties) as gateway,
        lifecycle.side_tasks(id_keys.keep(settings.id_key_file, ids, sessions)),
    ):
        await gateway.catalogue.begun(_BEGIN_SECONDS)
        async with (
            admin.serving(
                settings.admin_host or settings.host,
                settings.probes_port(),
                gateway.own_routes.unready,
                collect=Figures(gateway.catalogue, gateway.capacity).collect,
            ),
            _listening(gateway.dispatcher.handle, settings, certificate, gateway.capacity) as port,
        ):
            try:
                yield port
            finally:
                # Not ready from here on, and every long poll and stream ends. Who balances gateways may take a while to
                # see it, and sends more; then the listener closes and calls finish.
                gateway.draining.set()
                gateway.broadcaster.close()
                _log.info("stopping")
                await asyncio.sleep(settings.linger_seconds)
                gateway.stopping.set()


class _Gateway:
    """The parts of a gateway, wired; they follow and serve while the body runs."""

    def __init__(
        self,
        settings: GatewaySettings,
        ids: TaskIds,
        *,
        keys: ClientKeys | None,
        tokens: Tokens | None,
        door: Door,
        audit: AuditLog,
        duties: asyncio.TaskGroup,
    ) -> None:
        self._duties = duties
        self._keys, self._tokens = keys, tokens
        self.draining, self.stopping = asyncio.Event(), asyncio.Event()
        self.capacity = _capacity(settings)
        self._credentials = credentials = Credentials.of(settings)
        self._trust = TargetTrust(settings.targets_ca_file, credentials)
        self._mom = mom = Mom(settings.mom, credentials)
        copy = CatalogueCache(settings.catalogue_copy or settings.id_key_file.with_name(_CATALOGUE_COPY))
        largest = settings.max_stream_message_bytes
        self.catalogue = catalogue = ServiceCatalogue(
            mom,
            copy,
            ids.fingerprint,
            duties.create_task,
            max_stream_message=largest,
            credentials=credentials,
            trust=self._trust,
        )
        self._open_streams = OpenStreams(settings.max_streams, max_message_bytes=largest)
        self._grace_seconds = settings.grace_seconds
        self._enqueuer, self._clock, self._offload = Enqueuer(mom), Clock(mom), Offload(settings.max_waiting_bytes)
        task_reader = TaskReader(
            mom, ids, self.draining, max_waiting_bytes=settings.max_waiting_bytes, max_waits=settings.max_waits
        )
        self._listings = listings = Listings(catalogue, mom)
        self.broadcaster = Broadcaster(Snapshots(catalogue, mom, listings, ids).take)
        wait = settings.max_wait_seconds
        callback_urls = CallbackUrls(settings.callback_origins)
        self._deliverer = _deliverer(settings, mom, catalogue, ids, offload=self._offload, urls=callback_urls)
        call_services = CallServices(
            catalogue,
            self._enqueuer,
            task_reader,
            self._offload,
            ids,
            wait,
            settings.body_seconds,
            self._open_streams,
            callback_urls,
            door.closed,
        )
        anonymous = settings.anonymous_calls
        security = shared.security(keys=keys is not None, tokens=tokens is not None, anonymous=anonymous)
        self.own_routes = OwnRoutes(
            catalogue,
            listings,
            TaskRoutes(catalogue, task_reader, self._offload, self.draining, ids=ids, max_wait_seconds=wait),
            OperatorRoutes(catalogue, mom, listings, task_reader, ids=ids, door=door),
            batches=Batches(call_services),
            openapi=Documents(catalogue, security=security),
            clock=self._clock,
            pages=Pages(self.broadcaster, door),
            draining=self.draining,
        )
        self.dispatcher = Dispatcher(
            call_services,
            self.own_routes,
            door=door,
            hosts=Hosts.of(settings, closed=door.closed),
            audit=audit,
            cors_origins=settings.cors_origins,
            draining=self.draining,
        )

    async def __aenter__(self) -> Self:
        self._following_mom = self._duties.create_task(self._mom.run())
        ending = self._open_streams.end_with(self.stopping, self._grace_seconds)
        running = [self.catalogue.follow(), self.broadcaster.run(), self._clock.keep(), ending]
        if self._deliverer is not None:
            running.append(self._deliverer.run())
        if self._keys is not None:
            running.append(self._keys.keep())
        if self._tokens is not None:
            running.append(self._tokens.keys.keep())
        running += duties(self._credentials, self._trust)
        self._following = [self._duties.create_task(duty) for duty in running]
        return self

    async def __aexit__(self, *_: object) -> None:
        await lifecycle.end(self._following)
        self._offload.close()
        await self._enqueuer.close()
        await self._listings.close()
        await self.catalogue.close()
        # Waited for as well: it must not find its channel closed, which it would report as a defect.
        await lifecycle.end([self._following_mom])
        await self._mom.close()


def _deliverer(
    settings: GatewaySettings,
    mom: Mom,
    catalogue: ServiceCatalogue,
    ids: TaskIds,
    *,
    offload: Offload,
    urls: CallbackUrls,
) -> Deliverer | None:
    """Return what tells clients' URLs of their tasks' ends, if any may be told.

    Raises:
        StartError: The secrets that sign it can't be had, or whom receivers are trusted by.
    """
    if settings.callback_secret_file is None or not settings.callback_origins:
        return None
    signer = Signer.of_file(settings.callback_secret_file)
    trust = trusting(settings.callback_ca_file, "POSTE_CALLBACK_CA_FILE")
    return Deliverer(
        mom, catalogue, ids, offload, urls=urls, signer=signer, networks=settings.callback_networks, trust=trust
    )


def _tokens(settings: GatewaySettings) -> Tokens | None:
    """Return what judges the tokens of an issuer, if one is trusted.

    Raises:
        StartError: What reads them is not installed, or the issuer's keys, or whom their server is trusted by, can't be
            had.
    """
    if settings.jwt_issuer is None:
        return None
    try:
        from poste_gateway.access.issuer_keys import FetchedKeys, FileKeys  # noqa: PLC0415 - only where it is wanted
        from poste_gateway.access.tokens import Tokens  # noqa: PLC0415 - the same
    except ImportError as error:
        raise StartError("POSTE_JWT_ISSUER is set: pip install 'poste[jwt]'") from error
    file, url, algorithms = settings.jwt_jwks_file, settings.jwt_jwks_url, settings.jwt_algorithms
    if file is not None:
        return Tokens(FileKeys(file, algorithms), settings)
    trust = trusting(settings.jwt_ca_file, "POSTE_JWT_CA_FILE")
    return Tokens(FetchedKeys(str(url), algorithms, trust), settings)


def _capacity(settings: GatewaySettings) -> Capacity:
    return Capacity(
        max_connections=settings.max_connections,
        max_peer_connections=settings.max_peer_connections,
        max_received_bytes=settings.max_received_bytes,
        max_unsent_bytes=settings.max_unsent_bytes,
        trusted=settings.trusted_proxies,
    )


def _certificate(settings: GatewaySettings) -> Certificate | None:
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    return Certificate(settings.tls_certificate_file, settings.tls_key_file)


@contextlib.asynccontextmanager
async def _listening(
    handle: Handle, settings: GatewaySettings, certificate: Certificate | None, capacity: Capacity
) -> AsyncIterator[int]:
    """Serve by HTTP alone; or by HTTPS, with the HTTP port leading there."""

    def serving(
        handle: Handle, port: int, tls: ssl.SSLContext | None = None
    ) -> contextlib.AbstractAsyncContextManager[int]:
        return server.serving(
            handle,
            settings.host,
            port,
            max_body_bytes=settings.max_body_bytes,
            grace_seconds=settings.grace_seconds,
            patience=Patience(settings.idle_seconds, settings.head_seconds, settings.write_seconds),
            capacity=capacity,
            tls=tls,
        )

    if certificate is None or settings.tls_port is None:
        async with serving(handle, settings.port) as port:
            _log.info("listening", address=authority(settings.host, port))
            yield port
        return
    async with (
        lifecycle.side_tasks(certificate.keep()),
        serving(strict(handle), settings.tls_port, certificate.context) as port,
        serving(Redirect(handle, certificate, settings.tls_public_port or port).handle, settings.port) as plain,
    ):
        _log.info("listening", address=authority(settings.host, port), redirects=authority(settings.host, plain))
        yield port


async def run(settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Serve until `stop`; raises as `running` does."""
    async with running(settings):
        await stop.wait()


def main(**overrides: object) -> int:
    """Run the gateway until it is asked to stop; `overrides` win over the environment. Returns the exit code."""
    return program.main("gateway", GatewaySettings, overrides, run, traced=True)


if __name__ == "__main__":
    sys.exit(main())
