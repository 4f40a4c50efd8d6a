"""Tells clients' URLs of their tasks' ends: leases what is due from the middleware, posts it, and says what came of it.

It is the gateway that does so, for here is what it needs: how a task is written as JSON, the settings that say which
URLs may be named, and nothing of Redis. Every gateway with these settings does it; one that dies leaves what it had
leased to the others. What is told stands in docs/rest.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import aiohttp
from yarl import URL

from poste import protojson
from poste.domain.errors import InvalidTaskId
from poste.domain.task_id import TaskId, TaskIds, with_queue
from poste.runtime import lifecycle, logs, metrics
from poste.runtime.setting_values import Network
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.callbacks import addresses
from poste_gateway.callbacks.addresses import ForbiddenAddressError
from poste_gateway.callbacks.signing import Signer
from poste_gateway.calls.offload import LARGE_MESSAGE, Offload
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.http.callback_urls import CallbackUrls
from poste_gateway.http.responses import JSON
from poste_gateway.mom import Mom, MomAway, MomRefused
from poste_gateway.tasks import task_view

#: How many are told at once; and of an origin whose latest try failed or was slow: it must not keep the others waiting.
_AT_ONCE: Final = 32
_AT_ONCE_BAD: Final = 4
#: How long what is not told because of that is put off, in seconds: doubled with each try there that fails, up to the
#: longest. When an origin is back it is told within that.
_PUT_OFF_SECONDS: Final = 60.0
_MOST_PUT_OFF_SECONDS: Final = 960.0
_MOST_DOUBLED: Final = 10
#: So many such origins are remembered.
_MOST_BAD: Final = 1000
#: A try that takes longer is slow, in seconds.
_SLOW_SECONDS: Final = 2.0
#: How long one try may take, in seconds: less than a lease, so that no other gateway tells it meanwhile.
_TRY_SECONDS: Final = 15.0
#: How long the middleware is asked to wait for something to be due, in seconds, and the pause if it can't be asked.
_WAIT_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 1.0
#: How large what is told may be, in bytes: beyond it the task's response is left out.
_MOST_BYTES: Final = 1024 * 1024
#: How much is kept of what went wrong, in characters: receivers have their say in it.
_LONGEST_WHY: Final = 200
#: Who waits for a turn to have a large message written.
_PEER: Final = "callbacks"
#: A receiver that wants no more of it says so (Standard Webhooks 1.0).
_GONE: Final = 410
_log: Final = logs.get("callbacks")


class Told(NamedTuple):
    """What came of one try: by which name it counts, whether it is the last, what went wrong, how long it took."""

    outcome: str
    final: bool = False
    why: str = ""
    seconds: float = 0.0


class Deliverer:
    """Tells URLs, while `run` runs."""

    def __init__(
        self,
        mom: Mom,
        catalogue: ServiceCatalogue,
        ids: TaskIds,
        offload: Offload,
        *,
        urls: CallbackUrls,
        signer: Signer,
        networks: tuple[Network, ...],
        trust: ssl.SSLContext,
    ) -> None:
        """Connect the parts.

        Args:
            mom: Has what is due.
            catalogue: The services, by whose messages tasks are written.
            ids: Reads tasks' ids.
            offload: Writes large ones.
            urls: Which URLs may be told.
            signer: Signs what is told.
            networks: Where they may be besides the public Internet.
            trust: By which receivers' certificates are verified.
        """
        self._mom, self._catalogue, self._ids, self._offload = mom, catalogue, ids, offload
        self._urls, self._signer, self._networks, self._trust = urls, signer, networks, trust
        self._telling: set[asyncio.Task[None]] = set()
        #: How many are told now, by origin; and of those origins whose latest try failed or was slow, how many in a row
        #: did, the latest one last.
        self._under_way: Counter[URL] = Counter()
        self._bad: dict[URL, int] = {}

    async def run(self) -> None:
        """Tell what is due. Never returns."""
        async with (
            addresses.connecting(self._networks, limit=_AT_ONCE, trust=self._trust) as connector,
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
        ):
            try:
                while True:
                    leased = await self._leased(_AT_ONCE - len(self._telling))
                    await self._put_off([one for one in leased if not self._begins(session, one)])
                    if len(self._telling) >= _AT_ONCE:
                        await asyncio.wait(self._telling, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await lifecycle.end([*self._telling])

    async def _leased(self, count: int) -> list[pb.Callback]:
        # Without the catalogue no response could be written, and the receiver would be told that it can't be.
        if self._catalogue.unready is None:
            with contextlib.suppress(MomAway, MomRefused):
                return list(await self._mom.lease_callbacks(count, _WAIT_SECONDS))
        await asyncio.sleep(_PAUSE_SECONDS)
        return []

    def _begins(self, session: aiohttp.ClientSession, callback: pb.Callback) -> bool:
        """Begin to tell one, unless as many are told at its origin as may be, which is down or slow."""
        origin = _origin_of(callback)
        if origin in self._bad and self._under_way[origin] >= _AT_ONCE_BAD:
            return False
        self._under_way[origin] += 1
        telling = asyncio.create_task(self._tell_and_settle(session, callback, origin))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        return True

    async def _put_off(self, callbacks: Sequence[pb.Callback]) -> None:
        """Have some be due again after a while: all would be leased once a minute, only to be skipped again."""
        settled = []
        for callback in callbacks:
            failed = min(self._bad.get(_origin_of(callback), 1), _MOST_DOUBLED)
            one = _about(callback)
            one.put_off_seconds = min(_MOST_PUT_OFF_SECONDS, _PUT_OFF_SECONDS * 2 ** (failed - 1))
            settled.append(one)
        if settled:
            # Otherwise they are due when their leases are over.
            with contextlib.suppress(MomAway, MomRefused):
                await self._mom.settle_callbacks(settled)

    async def _tell_and_settle(self, session: aiohttp.ClientSession, callback: pb.Callback, origin: URL) -> None:
        try:
            told = await self._tell(session, callback)
        except Exception:  # noqa: BLE001 - one that can't be told must not keep the others from it
            _log.exception("callback failed", key=callback.task.key)
            told = Told("defect", why="the gateway failed: its log says how")
        finally:
            self._under_way[origin] -= 1
            if not self._under_way[origin]:
                del self._under_way[origin]
        self._note(origin, bad=told.outcome != "told" or told.seconds > _SLOW_SECONDS)
        metrics.callback_tries_total.labels(told.outcome).inc()
        await self._settle(callback, told, host=origin.host or "")

    def _note(self, origin: URL, *, bad: bool) -> None:
        """Note how an origin's latest try went."""
        before = self._bad.pop(origin, 0)
        if bad:
            self._bad[origin] = before + 1
            if len(self._bad) > _MOST_BAD:
                # Clients name origins, any number of them: the one that was tried longest ago is forgotten.
                del self._bad[next(iter(self._bad))]

    async def _settle(self, callback: pb.Callback, told: Told, *, host: str) -> None:
        settled = _about(callback)
        settled.told, settled.refused, settled.failure = told.outcome == "told", told.final, told.why
        try:
            (result,) = await self._mom.settle_callbacks([settled])
        except (MomAway, MomRefused):
            # It is told once more when its lease is over.
            return
        facts = {
            "task": with_queue(callback.task.service, callback.id_rest),
            "service": callback.task.service,
            # Not the whole URL, which may have a secret of its receiver's.
            "host": host,
            "tries": callback.failures + 1,
        }
        if result == pb.CALLBACK_RESULT_UNDELIVERED:
            _log.error("callback undelivered", **facts, reason=told.why)
        elif told.outcome != "told":
            _log.warning("callback not delivered yet", **facts, reason=told.why)

    async def _tell(self, session: aiohttp.ClientSession, callback: pb.Callback) -> Told:
        """Try it once."""
        if CallbackUrls.wrong_with(callback.url) is not None or not self._urls.allows(callback.url):
            return Told("forbidden", why="the operator names this origin no more")
        try:
            task_id = self._ids.read(with_queue(callback.task.service, callback.id_rest))
        except InvalidTaskId:
            return Told("forbidden", final=True, why="the task's id can't be read")
        url, body = URL(callback.url), await self._written(task_id, callback)
        # One id for all tries of one end: by it a receiver knows that it was told already.
        message_id = f"{callback.task.key}_{callback.end_time.ToMilliseconds()}"
        headers = {"Content-Type": JSON, "user-agent": "poste", **self._signer.headers(message_id, _now(), body)}
        begin = time.monotonic()
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                # Nothing is read but the head.
                async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                    return _judged(response.status)._replace(seconds=time.monotonic() - begin)
        except TimeoutError:
            return Told("unreached", why=f"no answer within {_TRY_SECONDS:g} s")
        except (aiohttp.ClientError, OSError) as error:
            cause = _forbidden(error)
            return Told("unreached" if cause is None else "forbidden", why=_in_short(cause or error))

    async def _written(self, task_id: TaskId, callback: pb.Callback) -> bytes:
        # Its response, or its error's details.
        size = callback.task.ByteSize()
        if size <= LARGE_MESSAGE:
            return self._body(task_id, callback)
        # All ends together have one client's share of the turns: clients wait for the others.
        return await self._offload.run(lambda: self._body(task_id, callback), peer=_PEER, size=size, accepted=True)

    def _body(self, task_id: TaskId, callback: pb.Callback) -> bytes:
        task, service = callback.task, self._catalogue.services.get(callback.task.service)
        if not task.response_bytes:
            body = _message(callback, task_view.to_value(task_id, task, service))
            if len(body) <= _MOST_BYTES:
                return body
        left_out = {"responseBytes": task.response_bytes or len(task.response)}
        task.ClearField("response")
        return _message(callback, {**task_view.to_value(task_id, task, service), **left_out})


def _origin_of(callback: pb.Callback) -> URL:
    """Return where a callback is told; of a URL that is none, no place."""
    return URL(callback.url).origin() if CallbackUrls.wrong_with(callback.url) is None else URL()


def _about(callback: pb.Callback) -> pb.SettledCallback:
    """Return the beginning of what is said of a callback."""
    return pb.SettledCallback(service=callback.task.service, key=callback.task.key, end_time=callback.end_time)


def _message(callback: pb.Callback, task: dict[str, Any]) -> bytes:
    end_time = task_view.time(callback.end_time)
    return protojson.dumps({"type": "task.ended", "timestamp": end_time, "data": {**task, "endTime": end_time}})


def _now() -> int:
    return int(time.time())


def _judged(status: int) -> Told:
    if 200 <= status < 300:  # noqa: PLR2004 - the class of statuses
        return Told("told")
    if status == _GONE:
        return Told("refused", final=True, why="status 410: the receiver wants no more of it")
    redirected = ", and redirects are not followed" if 300 <= status < 400 else ""  # noqa: PLR2004 - the same
    return Told("refused", why=f"status {status}{redirected}")


def _in_short(error: Exception) -> str:
    """Return what went wrong, without the URL, which may have a secret of its receiver's."""
    text = str(error)
    if isinstance(error, aiohttp.ClientResponseError):
        text = f"{type(error).__name__}: {error.message}"
    elif isinstance(error, aiohttp.InvalidURL):
        text = ""
    # On one line: the parser draws where the mistake is.
    return " ".join(text.split())[:_LONGEST_WHY] or type(error).__name__


def _forbidden(error: BaseException | None) -> ForbiddenAddressError | None:
    """Return the forbidden address that an error comes from, if it does."""
    while error is not None:
        if isinstance(error, ForbiddenAddressError):
            return error
        error = getattr(error, "os_error", None) or error.__cause__
    return None
