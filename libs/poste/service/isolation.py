"""`def` handlers that run in processes of their own, which can be ended, as a thread can't.

For handlers that may hang or crash in a library's native code. Such a process is spawned with a copy of the servicer,
is given one call at a time, bytes in and an outcome out, and when it ends before that, for whatever reason, another
takes its place. Pebble keeps them; it is an extra (`poste[isolated]`), for its licence is the LGPL.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from poste.domain.codes import Code
from poste.domain.errors import StartError
from poste.runtime import logs
from poste.runtime.waits import done_within
from poste.service.call import Call
from poste.service.context import SyncContext
from poste.service.outcome import Outcome, answered
from poste.service.servicer import ServedMethod, ServedService, services_of

_log = logs.get("isolation")
#: What Pebble calls its processes.
_PROCESS_NAME: Final = "pebble_pool_worker"
#: From linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1


class Isolation:
    """The processes for some of a service's methods.

    Attributes:
        methods: Those that are run there.
    """

    def __init__(
        self,
        servicers: Sequence[object],
        services: Sequence[ServedService],
        names: Collection[str],
        *,
        processes: int | None = None,
        hard_timeout_seconds: float | None = None,
    ) -> None:
        """Prepare; the processes are spawned with the first call.

        Args:
            servicers: What is served; each process gets a copy.
            services: The same, as it was read.
            names: The methods: `Method`, or `package.Service/Method`.
            processes: How many there may be; as many as there are cores unless given.
            hard_timeout_seconds: How long a handler may run at most, whatever its caller allows.

        Raises:
            StartError: There is no such method, it is no `def`, a servicer can't be copied, or the extra is missing.
        """
        self.methods = frozenset(_method(services, name) for name in names)
        self._servicers = tuple(servicers)
        self._size = processes or os.cpu_count() or 1
        self._hard_timeout_seconds = hard_timeout_seconds
        self._places: asyncio.Semaphore | None = None
        self._pool: Any = None
        try:
            import pebble  # noqa: F401, PLC0415 - only where it is wanted
        except ImportError as error:
            raise StartError("methods are to be isolated: pip install 'poste[isolated]'") from error
        try:
            pickle.dumps(self._servicers)
        except Exception as error:
            raise StartError(f"methods are to be isolated, and the servicer can't be copied: {error}") from error

    async def take_place(self, patience_seconds: float | None) -> bool:
        """Wait for a process; returns whether there was one in time. Give the place back with `leave_place`."""
        if self._places is None:
            self._places = asyncio.Semaphore(self._size)
        return await done_within(patience_seconds, self._places.acquire())

    def leave_place(self) -> None:
        """Give a process back."""
        assert self._places is not None  # noqa: S101 - a place was taken
        self._places.release()

    async def run(self, method: ServedMethod, request: bytes, call: Call) -> Outcome:
        """Run a handler in a process; if this is cancelled, the process is ended."""
        from pebble import ProcessExpired  # noqa: PLC0415 - only where it is wanted

        facts = _Facts(call.metadata(), call.peer, call.deadline, dict(call.names()))
        try:
            pool = self._running_pool()
            if call.begin is not None:
                call.begin()
            arguments = (method.service, method.name, request, facts)
            future = pool.schedule(_answer, args=arguments, timeout=self._hard_timeout_seconds)
            outcome: Outcome = await asyncio.wrap_future(future)
        except TimeoutError:
            words = f"the handler was ended after its hard limit of {self._hard_timeout_seconds:g} s"
            return Outcome(Code.DEADLINE_EXCEEDED, words, overdue=True)
        except ProcessExpired as error:
            _log.error("handler's process ended", service=method.service, method=method.name, exit_code=error.exitcode)
            # It was cut off, and what it had done by then is unknown.
            return Outcome(Code.UNAVAILABLE, "the handler's process ended before it answered", overdue=True)
        except RuntimeError:
            # Its processes died of something else than a call: the next call gets new ones.
            _log.exception("processes lost")
            self.close()
            return Outcome(Code.UNAVAILABLE, "the handler's process was lost", overdue=True)
        return outcome

    def close(self) -> None:
        """End the processes, without waiting for them."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        pool.stop()
        # Left to themselves they would be waited for when the interpreter ends, and one that hangs asked in vain first.
        for child in multiprocessing.active_children():
            if child.name == _PROCESS_NAME:
                child.kill()
        threading.Thread(target=pool.join, name="isolation", daemon=True).start()

    def _running_pool(self) -> Any:
        if self._pool is None:
            from pebble import ProcessPool  # noqa: PLC0415 - the same

            # Never a fork: gRPC has threads here.
            spawn: Any = multiprocessing.get_context("spawn")
            given = (self._servicers, logs.inherited())
            self._pool = ProcessPool(self._size, initializer=_begin, initargs=given, context=spawn)
        return self._pool


def _method(services: Sequence[ServedService], name: str) -> ServedMethod:
    found = [
        method
        for service in services
        for method in service.methods.values()
        if name in (method.name, f"{service.name}/{method.name}")
    ]
    if any(name in (one, f"{service.name}/{one}") for service in services for one in service.streaming):
        raise StartError(f"isolated: {name} streams, and only what answers once can be run in a process of its own")
    if len(found) != 1:
        raise StartError(f"isolated: {len(found)} methods are called {name}")
    if found[0].coroutine:
        raise StartError(f"isolated: {name} is `async def`, and only a `def` can be run in a process of its own")
    return found[0]


#: In a process for handlers: its methods.
_METHODS: Final[dict[tuple[str, str], ServedMethod]] = {}


class _Facts(NamedTuple):
    """What a process for handlers is to know of a call."""

    given: Any
    peer: str
    deadline: float | None
    names: dict[str, str]


def _begin(servicers: Sequence[object], pipe: logs.Pipe | None) -> None:
    if pipe is not None:
        logs.inherit(pipe)
    if sys.platform == "linux":
        # None outlives the process that it works for, whatever death that is.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for service in services_of(servicers):
        for method in service.methods.values():
            _METHODS[method.service, method.name] = method


def _answer(service: str, name: str, request: bytes, facts: _Facts) -> Outcome:
    """Run one handler, in a process for handlers; whatever it does becomes an outcome."""
    method = _METHODS[service, name]
    # The clock is the machine's, so the deadline means the same here.
    call = Call(given=facts.given, peer=facts.peer, deadline=facts.deadline)
    # One call after the other, and this thread runs no others.
    logs.names.set(lambda: facts.names)
    try:
        message = method.parse(request)
    except DecodeError:
        return Outcome(Code.INVALID_ARGUMENT, "the request can't be decoded")
    try:
        answer = method.behaviour(message, SyncContext(call, None))
        if call.aborted or call.code is not Code.OK:
            return call.failure()
        response = method.serialize(answer)
    except BaseException as error:  # noqa: BLE001 - an author's code: what it raises is its answer
        if call.aborted:
            return call.failure()
        _log.error("handler failed", service=method.service, method=method.name, exc_info=error)
        return call.failed_by(error)
    finally:
        call.close()
    return answered(response, call.trailing_metadata)
