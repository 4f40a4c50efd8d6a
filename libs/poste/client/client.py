"""The client: one method for each thing that the gateway's REST can be asked for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, Self, TypeVar, Unpack
from urllib.parse import quote, urlsplit

from poste.client import batches
from poste.client.answers import (
    Answer,
    CalledWith,
    DeadGroup,
    Forgotten,
    History,
    Moving,
    Queue,
    Registered,
    Service,
    Task,
    Undelivered,
)
from poste.client.batches import KeptCall
from poste.client.call_options import BatchOptions, CallOptions, headers_of
from poste.client.errors import AnswerLost, ClientError, GatewayUnreachable, NotAGateway, Problem
from poste.client.filters import ALL, TaskFilter
from poste.client.outlines import MethodOutline
from poste.client.results import result_of
from poste.client.snapshots import Snapshot
from poste.client.transport import REQUEST_ID, Reply, Transport, new_request_id
from poste.domain.task import TaskState

#: How long a request may take beyond what it was asked to wait, in seconds: two attempts of a handler at its default
#: timeout of 30 s, and the way there and back.
TIMEOUT_SECONDS: Final = 75.0
#: How long one poll of a task waits at the gateway, in seconds; longer waits are made of several polls, so that no
#: proxy between the two sees a connection that is idle for minutes.
_POLL_SECONDS: Final = 30
#: Between two polls where the gateway answered before it was asked to (it stops, or does not know long polls).
_PAUSE_SECONDS: Final = 0.2
#: A gateway that is restarted, or has lost its middleware, is back within this time, in seconds; a wait outlasts that.
_OUTAGE_SECONDS: Final = 30.0
_ACCEPTED: Final = 202
_UNAVAILABLE: Final = 503
#: The type of the problem of a call whose key another call has that runs now.
_KEY_IN_USE: Final = "/problems/idempotency-key-in-use"
#: A gateway gives a sign of life every 5 s to those who watch it; one from which nothing came for so long, in seconds,
#: is gone.
_SILENCE_SECONDS: Final = 15.0
#: Asks for a replay whatever the schema is.
_AS_IS: Final = "?asIs=true"
#: How many dead calls are asked for at once.
_PAGE_SIZE: Final = 500
#: Where `poste up` has its gateway.
DEFAULT_URL: Final = "http://localhost:8080"
_SCHEMES: Final = ("http", "https")

ReadT = TypeVar("ReadT")
StubT = TypeVar("StubT")


def gateway_url(text: str) -> str:
    """Spell a gateway's URL out: `host:port` will do, a path prefix is kept.

    Raises:
        ValueError: It is no URL of an HTTP server.
    """
    url = text if "://" in text else f"http://{text}"
    parts = urlsplit(url)
    # Reading the port checks it.
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.port == 0 or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is not the URL of a gateway, which is like http://localhost:8080")
    return url.rstrip("/")


class Client:
    """Asks one gateway. To be used in `async with`; one client serves any number of requests at once.

    Every method raises `Problem`, `GatewayUnreachable`, `AnswerLost` or `NotAGateway` (see `poste.client.errors`).
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        operator_token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """Take the gateway's URL.

        Args:
            url: Where it is; `host:port` will do.
            key: This client's key, which goes with every request.
            operator_token: What goes with the operators' methods (`pause` and below) instead, if they need another.
            timeout_seconds: How long any request may take, beyond what it asks the gateway to wait.

        Raises:
            ValueError: `url` is no URL of an HTTP server.
        """
        self.url = gateway_url(url)
        self._timeout_seconds = timeout_seconds
        self._transport = Transport(self.url, key)
        self._operator = {"Authorization": f"Bearer {operator_token}"} if operator_token else {}

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    async def call(self, method: str, message: Mapping[str, Any], **options: Unpack[CallOptions]) -> Answer | Task:
        """Call a method of a service that answers with one message.

        Args:
            method: `package.Service/Method`, or the path of one of its routes, such as `/v1/sum`.
            message: The request message as ProtoJSON.
            options: How it is to be treated.

        Returns:
            The service's answer, or the task that stands for the call now.

        Raises:
            ValueError: The method answers with a stream; or the message holds what JSON can't say (NaN, infinity).
        """
        try:
            reply = await self._transport.send(
                "POST",
                _path(method),
                timeout_seconds=self._timeout_seconds + (options.get("wait_seconds") or 0),
                headers=headers_of(**options),
                message=message,
            )
        except Problem as problem:
            return await self._running(problem)
        return self._answer(reply)

    async def run(
        self,
        method: str,
        message: Mapping[str, Any] | None = None,
        /,
        *,
        wait_seconds: float = math.inf,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Any:
        """Call a method and return its result, whichever road the call takes: `await client.run("a.B/C", x=1)`.

        Args:
            method: As `call`.
            message: The request message as ProtoJSON.
            wait_seconds: How long to wait for it at most. A call that was kept goes on.
            idempotency_key: As `call`.
            headers: As `call`.
            fields: Fields of the message, beside or instead of it; those that are called as one of the arguments above
                can stand in it alone.

        Returns:
            The response message as ProtoJSON.

        Raises:
            Problem: It failed: on either road the same.
            NotFinished: It was kept, and has not ended within that time.
            NoResult: It was kept, and was cancelled, or its time to live was over.
            ValueError: As `call`.
        """
        end = time.monotonic() + wait_seconds
        sent = {REQUEST_ID: new_request_id(), **(headers or {})}
        called = await self.call(
            method,
            {**(message or {}), **fields},
            wait_seconds=None if math.isinf(wait_seconds) else math.ceil(wait_seconds),
            idempotency_key=idempotency_key,
            headers=sent,
        )
        if isinstance(called, Answer):
            return called.response
        task = await self.task(called.id, wait_seconds=max(0.0, end - time.monotonic()))
        return result_of(task, request_id=sent[REQUEST_ID])

    async def keep_many(
        self, calls: Iterable[Mapping[str, Any]], **options: Unpack[BatchOptions]
    ) -> AsyncGenerator[KeptCall, None]:
        """Have many calls kept, of any methods, and yield what became of each, in their order.

        They are sent by parts, each once the one before was answered. Of what was not yielded when this fails it is not
        known whether it was kept: with idempotency keys all of it can be sent again.

        Args:
            calls: Each has `method` (`package.Service/Method`) and `request` (ProtoJSON), and may have `idempotencyKey`
                and `notBefore` (docs/rest.md).
            options: How all of them are to be treated.

        Raises:
            ValueError: A call holds what JSON can't say (NaN, infinity).
        """
        for some in batches.requests(calls):
            reply = await self._transport.send(
                "POST",
                "/v1/tasks:batch",
                timeout_seconds=self._timeout_seconds,
                headers=headers_of(**options),
                message=some,
            )
            read = functools.partial(_read_kept, some)
            for kept in self._read(read, reply.document):
                yield kept

    def stub(self, stub_class: Callable[[Any], StubT]) -> StubT:
        """Return a generated stub whose calls go through the gateway, as `run` has them: `await stub.Add(request)`.

        Its methods take `timeout` (seconds) and `metadata`, and raise what `run` raises. Those that answer with a
        stream are iterated over; those that take one raise NotImplementedError.
        """
        from poste.client import stubs  # noqa: PLC0415 - who calls by names alone needs no protobuf

        return stub_class(stubs.Channel(self.run, self.answers))

    async def answers(
        self, method: str, message: Mapping[str, Any], **options: Unpack[CallOptions]
    ) -> AsyncGenerator[Answer | Task, None]:
        """Call a method of a service, and yield each message that it answers with: of one that does not stream, one.

        To be closed (`contextlib.aclosing`) where not all of them are read: then the service's handler is cancelled.

        Args: as `call`.

        Raises:
            Problem: It failed; of a stream perhaps after some of its messages.
            AnswerLost: The connection broke; likewise.
        """
        sending = self._transport.replies(
            "POST",
            _path(method),
            timeout_seconds=self._timeout_seconds + (options.get("wait_seconds") or 0),
            headers=headers_of(**options),
            message=message,
        )
        try:
            async with contextlib.aclosing(sending) as replies:
                async for reply in replies:
                    yield self._answer(reply)
        except Problem as problem:
            yield await self._running(problem)

    async def task(self, task_id: str, *, wait_seconds: float | None = None) -> Task:
        """Read a task.

        Once it was seen, a wait outlasts a gateway that is away for a while.

        Args:
            task_id: Its id.
            wait_seconds: How long to wait for its end; `math.inf` waits for as long as it takes.

        Returns:
            The task as it is now; it has not ended if the wait was over first.
        """
        end = time.monotonic() + (wait_seconds or 0)
        failing_since: float | None = None
        known = False
        while True:
            begin = time.monotonic()
            asked = max(0, math.ceil(min(end - begin, _POLL_SECONDS)))
            try:
                task = await self._poll(task_id, asked)
            except ClientError as error:
                failing_since = failing_since or time.monotonic()
                patience_end = min(end, failing_since + _OUTAGE_SECONDS)
                if not known or not _may_pass(error) or time.monotonic() >= patience_end:
                    raise
            else:
                known, failing_since = True, None
                if task.state.final or time.monotonic() >= end:
                    return task
            if time.monotonic() - begin < asked:
                await asyncio.sleep(min(_PAUSE_SECONDS, max(0.0, end - time.monotonic())))

    async def history(self, task_id: str) -> History:
        """Return the history of a queued call: when it was accepted, started, tried again, and when it ended."""
        reply = await self._ask("GET", f"/v1/tasks/{quote(task_id, safe='')}/history")
        return self._read(History.read, reply.document)

    async def cancel(self, task_id: str) -> Task:
        """Cancel a task, or ask it to stop if it runs already.

        Returns:
            The task as it is now: cancelled, or still running with `cancel_requested`.
        """
        reply = await self._ask("DELETE", f"/v1/tasks/{quote(task_id, safe='')}")
        return self._read(Task.read, reply.document)

    async def services(self) -> list[Service]:
        """List the catalogue: every service, what it can be asked for, and whether it is up."""
        reply = await self._ask("GET", "/v1/services")
        return self._read_all(Service.read, reply.document, "services")

    async def method(self, service: str, method: str) -> MethodOutline:
        """Return a method by its service's full name and its short one, and what its messages are made of."""
        reply = await self._ask("GET", f"/v1/services/{quote(service, safe='')}/methods/{quote(method, safe='')}")
        return self._read(MethodOutline.read, reply.document)

    async def queues(self) -> list[Queue]:
        """List the queues, in figures."""
        reply = await self._ask("GET", "/v1/queues")
        return self._read_all(Queue.read, reply.document, "queues")

    async def watch(self) -> AsyncGenerator[Snapshot, None]:
        """Yield what the gateway sees, about once a second, for ever; the newest tasks only if this is an operator."""
        stream = self._transport.events("/ui/events", silence_seconds=_SILENCE_SECONDS, headers=self._operator)
        async with contextlib.aclosing(stream) as events:
            async for name, document in events:
                if name == "snapshot":
                    yield self._read(Snapshot.read, document)

    async def pause(self, queue: str) -> Queue:
        """Have no more calls of a queue started; calls are still accepted, and those that run go on."""
        return await self._operate_queue(queue, "pause")

    async def resume(self, queue: str) -> Queue:
        """Have the calls of a paused queue started again."""
        return await self._operate_queue(queue, "resume")

    async def tasks(self, queue: str, *, count: int = 100) -> list[Task]:
        """List the newest calls of a queue, the newest first, at most 1000, each without its response and error."""
        reply = await self._operate("GET", f"/v1/queues/{quote(queue, safe='')}/tasks?pageSize={count}")
        return self._read_all(Task.read, reply.document, "tasks")

    def find_tasks(self, queue: str, wanted: TaskFilter) -> AsyncGenerator[Task, None]:
        """Yield the calls of a queue that a filter matches, in no order, each without its response and error."""
        # Without a state the gateway would list the newest.
        return self._listed(queue, "tasks", replace(wanted, states=wanted.states or tuple(TaskState)))

    def find_all_tasks(self, text: str = "") -> AsyncGenerator[Task, None]:
        """Yield the calls of all queues that a filter matches, in no order, each without its response and error.

        Args:
            text: The filter, such as `state = FAILED AND service = "calculator.v1.SumService"` (docs/rest.md).
        """
        return self._tasks_of(self._pages("GET", "/v1/tasks", ALL, filter=text, pageSize=str(_PAGE_SIZE)))

    def dead_letters(self, queue: str, wanted: TaskFilter = ALL) -> AsyncGenerator[Task, None]:
        """Yield the calls of a queue that Poste gave up, the longest dead first."""
        return self._listed(queue, "dead", wanted)

    async def dead_groups(self, queue: str, *, newest: int = 3) -> list[DeadGroup]:
        """Count what Poste gave up in a queue by method and reason, the group of the newest first."""
        reply = await self._operate("GET", f"/v1/queues/{quote(queue, safe='')}/dead-groups?newest={newest}")
        return self._read_all(DeadGroup.read, reply.document, "groups")

    def _listed(self, queue: str, which: str, wanted: TaskFilter) -> AsyncGenerator[Task, None]:
        path = f"/v1/queues/{quote(queue, safe='')}/{which}"
        return self._tasks_of(self._pages("GET", path, wanted, pageSize=str(_PAGE_SIZE)))

    async def _tasks_of(self, pages: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[Task, None]:
        async with contextlib.aclosing(pages):
            async for page in pages:
                for task in self._read_all(Task.read, page, "tasks"):
                    yield task

    async def _pages(
        self, verb: str, path: str, wanted: TaskFilter, **more: str
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Send a request about the calls that a filter matches, and again for each next page; yields every answer."""
        token = ""
        while True:
            query = wanted.query(**more, pageToken=token)
            reply = await self._operate(verb, f"{path}?{query}".rstrip("?"))
            token = self._read(lambda page: str(page["nextPageToken"]), reply.document)
            yield reply.document
            if not token:
                return

    async def called_with(self, task_id: str) -> CalledWith:
        """Return what a call was called with, and what became of it."""
        reply = await self._operate("GET", f"/v1/tasks/{quote(task_id, safe='')}/call")
        return self._read(CalledWith.read, reply.document)

    async def replay(self, task_id: str, *, as_is: bool = False) -> Task:
        """Have a call that Poste gave up, or that failed, run again, as if it were new.

        With `as_is` it runs whatever its method's schema is.
        """
        return await self._operate_task(task_id, f"replay{_AS_IS if as_is else ''}")

    async def purge(self, task_id: str) -> Task:
        """Give a call up for good: it can't be replayed any more."""
        return await self._operate_task(task_id, "purge")

    async def count(self, queue: str, verb: Literal["replay", "purge", "cancel"], wanted: TaskFilter = ALL) -> int:
        """Count the calls of a queue that a verb would be done to."""
        return (await self._operate_all(queue, verb, wanted, dryRun="true"))["matched"]

    async def replay_all(self, queue: str, wanted: TaskFilter = ALL, *, as_is: bool = False) -> int:
        """Have what is dead in a queue run again, or what FAILED, as `replay` has; returns how many calls that were."""
        return (await self._operate_all(queue, "replay", wanted, asIs="true" if as_is else ""))["replayed"]

    async def purge_all(self, queue: str, wanted: TaskFilter = ALL) -> int:
        """Give what is dead in a queue up for good; returns how many calls that were."""
        return (await self._operate_all(queue, "purge", wanted))["purged"]

    async def cancel_all(self, queue: str, wanted: TaskFilter = ALL) -> tuple[int, int]:
        """Cancel what waits in a queue, or ask what is RUNNING to stop; returns how many calls that were, of each."""
        done = await self._operate_all(queue, "cancel", wanted)
        return done["cancelled"], done["askedToStop"]

    async def move_all(self, queue: str, target: str, wanted: TaskFilter = ALL, *, dry_run: bool = False) -> Moving:
        """Move what waits in a queue, and what is dead, to another service's queue; with `dry_run` only count it.

        What that service could not run stays. Ids stay valid.
        """
        moved, refused, unfit = 0, 0, dict[tuple[str, str], None]()
        more = {"target": target, "dryRun": "true" if dry_run else ""}
        async for page in self._pages("POST", f"/v1/queues/{quote(queue, safe='')}/move", wanted, **more):
            part = self._read(Moving.read, page)
            moved, refused = moved + part.moved, refused + part.refused
            unfit |= dict.fromkeys(part.unfit)
        return Moving(moved, refused, tuple(unfit))

    async def _operate_all(self, queue: str, verb: str, wanted: TaskFilter, **more: str) -> Counter[str]:
        """Do something to many calls, in as many requests as it takes; returns the counts."""
        done: Counter[str] = Counter()
        async for page in self._pages("POST", f"/v1/queues/{quote(queue, safe='')}/{verb}", wanted, **more):
            done.update({word: int(count) for word, count in page.items() if word != "nextPageToken"})
        return done

    async def purge_ended(self, queue: str) -> int:
        """Drop all that ended in a queue more than a minute ago, but what is dead; returns how many calls that were."""
        reply = await self._operate("POST", f"/v1/queues/{quote(queue, safe='')}/purge-ended")
        return self._read(lambda answer: int(answer["purged"]), reply.document)

    async def undelivered(self, queue: str) -> list[Undelivered]:
        """List a hundred calls of a queue whose ends could not be told to their clients' URLs."""
        reply = await self._operate("GET", f"/v1/queues/{quote(queue, safe='')}/undelivered")
        return self._read_all(Undelivered.read, reply.document, "callbacks")

    async def redeliver(self, task_id: str) -> None:
        """Have a call's end told again that could not be told to its client's URL."""
        await self._operate("POST", f"/v1/tasks/{quote(task_id, safe='')}/redeliver")

    async def redeliver_all(self, queue: str) -> int:
        """Have all ends of a queue told again that could not be; returns how many."""
        reply = await self._operate("POST", f"/v1/queues/{quote(queue, safe='')}/redeliver")
        return self._read(lambda answer: int(answer["redelivered"]), reply.document)

    async def register(self, target: str) -> list[Registered]:
        """Make the services of a gRPC server known, `host:port`, which must have reflection; returns each of them."""
        reply = await self._operate("POST", f"/v1/services?target={quote(target, safe='')}")
        return self._read_all(Registered.read, reply.document, "services")

    async def forget(self, service: str, *, even_with_waiting: bool = False) -> Forgotten:
        """Take a service out of the catalogue; refused while its calls wait, unless they may."""
        query = "?evenWithWaiting=true" if even_with_waiting else ""
        reply = await self._operate("POST", f"/v1/services/{quote(service, safe='')}/forget{query}")
        return self._read(Forgotten.read, reply.document)

    async def page_link(self) -> str:
        """Return a link to the gateway's page that signs in who opens it first, as an operator, within 10 minutes."""
        reply = await self._operate("POST", "/ui/codes")
        return self._read(lambda answer: f"{self.url}/ui#code={answer['code']}", reply.document)

    async def _operate_queue(self, queue: str, verb: str) -> Queue:
        reply = await self._operate("POST", f"/v1/queues/{quote(queue, safe='')}/{verb}")
        return self._read_all(Queue.read, reply.document, "queues")[0]

    async def _operate_task(self, task_id: str, verb: str) -> Task:
        reply = await self._operate("POST", f"/v1/tasks/{quote(task_id, safe='')}/{verb}")
        return self._read(Task.read, reply.document)

    async def _operate(self, verb: str, path: str) -> Reply:
        return await self._transport.send(verb, path, timeout_seconds=self._timeout_seconds, headers=self._operator)

    async def _poll(self, task_id: str, wait_seconds: int) -> Task:
        reply = await self._transport.send(
            "GET",
            f"/v1/tasks/{quote(task_id, safe='')}",
            timeout_seconds=self._timeout_seconds + wait_seconds,
            headers={"Prefer": f"wait={wait_seconds}"} if wait_seconds else None,
        )
        return self._read(Task.read, reply.document)

    async def _ask(self, verb: str, path: str) -> Reply:
        return await self._transport.send(verb, path, timeout_seconds=self._timeout_seconds)

    async def _running(self, problem: Problem) -> Task:
        """Return the task of the first call with a key if the problem is that it still runs; else raise that."""
        if problem.type != _KEY_IN_USE:
            raise problem
        return await self.task(problem.location.rpartition("/")[2])

    def _answer(self, reply: Reply) -> Answer | Task:
        if reply.status == _ACCEPTED:
            return self._read(Task.read, reply.document)
        return Answer(reply.document, streamed=reply.streamed)

    def _read(self, read: Callable[[Mapping[str, Any]], ReadT], document: Mapping[str, Any]) -> ReadT:
        try:
            return read(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotAGateway(f"{self.url} does not answer as a Poste gateway: {error!r}") from error

    def _read_all(
        self, read: Callable[[Mapping[str, Any]], ReadT], document: Mapping[str, Any], member: str
    ) -> list[ReadT]:
        return self._read(lambda whole: [read(item) for item in whole[member]], document)


def _read_kept(calls: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> list[KeptCall]:
    return [KeptCall.read(call, one) for call, one in zip(calls, document["results"], strict=True)]


def _path(method: str) -> str:
    return method if method.startswith("/") else f"/{method}"


def _may_pass(error: ClientError) -> bool:
    """Return whether a retry may help: the request itself was not refused."""
    if isinstance(error, Problem):
        return error.status == _UNAVAILABLE
    return isinstance(error, GatewayUnreachable | AnswerLost)
