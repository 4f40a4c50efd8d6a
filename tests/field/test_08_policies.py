"""Who says how calls are treated: the author in code, the operator in the catalogue file, which wins."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import Any

import pytest
from support import shop
from support.behaviours import Behaving
from support.gateway import staged
from support.mom import RunningMom, running_mom
from support.office import Office
from support.redis_server import running
from support.waiting import until
from support.worker import FakeMom, running_worker, serving_mom
from testing.v1 import ledger_pb2, ledger_pb2_grpc

import poste
from poste.domain.errors import CatalogueError, StartError
from poste.domain.policy import MethodPolicy, RetryPolicy, ServicePolicy
from poste.queue.consumer import ClaimedTask, Consumer
from poste.rpc.catalogue import describe
from poste.rpc.descriptor_sets import file_descriptor_set
from poste.service.servicer import services_of
from poste.service.terms import Terms
from poste.v1 import catalogue_pb2, mom_service_pb2

LEDGER = "testing.v1.LedgerService"


def wrapped(handler: Any) -> Any:
    @functools.wraps(handler)
    async def other(*args: Any) -> Any:
        return await handler(*args)

    return other


@poste.policy(queued_timeout_seconds=3600, concurrency=2, away="reject")
class Ledger(ledger_pb2_grpc.LedgerServiceServicer):
    @wrapped
    @poste.policy(max_attempts=3, backoff_seconds=5, redeliver=True)
    async def Record(self, request: Any, context: Any) -> Any: ...  # noqa: N802 - the proto's name

    @poste.policy(timeout_seconds=7, away="queue")
    def Legacy(self, request: Any, context: Any) -> Any: ...  # noqa: N802 - the proto's name


async def test_what_an_author_says_in_code_holds_and_is_registered() -> None:
    """An author would have to ask each operator for the timeouts that the code needs."""
    (service,) = services_of([Ledger()])
    terms = Terms(service)

    assert terms.of("Record") == MethodPolicy(
        queue_when_away=False,
        queued_timeout_seconds=3600,
        retry=RetryPolicy(max_attempts=3, backoff_seconds=5),
        redeliver=True,
    )
    assert (terms.of("Legacy").timeout_seconds, terms.of("Legacy").queue_when_away) == (7, True)
    mom = FakeMom()
    mom.settings.settings.concurrency = 5
    async with serving_mom(mom) as target, running_worker(Ledger(), mom=target) as worker:
        assert worker.consumers[0].concurrency() == 2
        await until(lambda: worker.consumers[0].concurrency() == 5, what="the catalogue's word")
    assert mom.registered[0].author_settings == service.settings


def test_the_catalogue_file_wins_over_the_author_setting_by_setting() -> None:
    """An operator who must slow a service down tonight can't wait for its next release."""
    settings = catalogue_pb2.ServiceSettings
    narrow = catalogue_pb2.MethodSettings
    entry = shop.entry(
        timeout_seconds=2, concurrency=6, max_backoff_seconds=3, methods={"Quote": narrow(max_attempts=9)}
    )
    author = settings(concurrency=4, backoff_seconds=5, away=catalogue_pb2.AWAY_POLICY_REJECT)
    author.methods["Place"].CopyFrom(narrow(timeout_seconds=50, max_attempts=3, concurrency=3))
    author.methods["Quote"].CopyFrom(narrow(max_attempts=1, redeliver=True))
    entry.author_settings.CopyFrom(author)
    policy = describe(entry).policy
    place, quote = policy.methods["Place"], policy.methods["Quote"]

    # The service's own: it is not said of each method.
    assert (policy.concurrency, place.concurrency, quote.concurrency) == (6, 3, None)
    assert {one.timeout_seconds for one in policy.methods.values()} == {2}
    assert not any(one.queue_when_away for one in policy.methods.values())
    # What two say may differ without a mistake: the operator's bound holds.
    assert place.retry == RetryPolicy(max_attempts=3, backoff_seconds=3, max_backoff_seconds=3)
    assert (quote.retry.max_attempts, quote.redeliver) == (9, True)


@pytest.mark.parametrize(
    "said",
    [
        {"max_attempts": 0},
        {"max_attempts": 2.5},
        {"timeout_seconds": "5"},
        {"timeout_seconds": True},
        {"queued_timeout_seconds": -1},
        {"queued_timeout_seconds": float("inf")},
        {"backoff_seconds": 0},
        {"max_backoff_seconds": float("nan")},
        {"backoff_seconds": 5, "max_backoff_seconds": 1},
        {"redeliver": 1},
        {"away": "maybe"},
        {"concurrency": 0},
        {"starts_per_second": 0},
        {"starts_per_second": float("nan")},
        {"max_attempts": 2**40},
        {"max_result_ttl_seconds": 0},
        {"max_task_ttl_seconds": 30 * 86400 + 1},
    ],
)
def test_what_makes_no_sense_is_named_at_the_start(said: dict[str, Any]) -> None:
    """It would show as calls that fail for no reason, long after the start."""

    class Wrong(Behaving):
        @poste.policy(**said)
        async def Store(self, request: Any, context: Any) -> Any: ...  # noqa: N802 - the proto's name

    with pytest.raises(StartError, match=rf"(?s)(?=.*Store)(?=.*{list(said)[-1]})"):
        services_of([Wrong()])


def test_a_pace_is_a_methods_own() -> None:
    """Said of a class it would be read as that of all its methods together, which there is not."""
    with pytest.raises(StartError, match="starts_per_second"):
        services_of([poste.policy(starts_per_second=1)(type("Paced", (Behaving,), {}))()])


def test_a_policy_of_what_is_no_method_is_refused() -> None:
    """A handler with a typing error in its name would go without the policy, and no line would say so."""

    class Wrong(Behaving):
        @poste.policy(max_attempts=1)
        async def Stroe(self, request: Any, context: Any) -> Any: ...  # noqa: N802 - the mistake

    with pytest.raises(StartError, match=r"Wrong\.Stroe has a policy"):
        services_of([Wrong()])


@pytest.mark.parametrize(
    "settings",
    [
        {"backoff_seconds": 0},
        {"max_backoff_seconds": -1},
        {"queued_timeout_seconds": 0},
        {"concurrency": 0},
        {"backoff_seconds": 9, "max_backoff_seconds": 1},
    ],
)
def test_the_catalogue_names_what_makes_no_sense(settings: dict[str, Any]) -> None:
    """The same, said by the operator."""
    with pytest.raises(CatalogueError, match=f"{shop.NAME}.*{list(settings)[-1]}"):
        describe(shop.entry(**settings))


def test_a_longer_wait_than_a_minute_is_no_contradiction() -> None:
    """Who sets the first wait alone would have it cut, in silence, to the default of the longest."""
    retry = describe(shop.entry(backoff_seconds=300)).policy.methods["Get"].retry
    assert (retry.backoff_seconds, retry.max_backoff_seconds) == (300, 300)


async def test_no_more_tasks_run_at_once_than_was_said(office: Office) -> None:
    """A service whose library bears two calls at once would be given sixty-four."""
    running, most, limit = 0, 0, 2

    async def handle(task: ClaimedTask) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        await office.at_once(task)

    consumer = Consumer(queue=office.queue, settings=office.settings, handle=handle, concurrency=lambda: limit)
    office.consumers[consumer] = asyncio.create_task(consumer.run())
    await office.enqueue(20)
    await until(lambda: len(office.ran) == 20)
    assert most <= limit
    limit = 100
    await office.enqueue(20)
    await until(lambda: len(office.ran) == 40)
    # The process' own setting bounds it still.
    assert most <= office.settings.concurrency


async def test_the_middleware_keeps_both_words_apart(tmp_path: Path) -> None:
    """What the operator takes back would go on, or what the author says be gone after the middleware's restart."""
    (tmp_path / "ledger.binpb").write_bytes(file_descriptor_set(ledger_pb2.DESCRIPTOR))
    catalogue = tmp_path / "catalogue.toml"

    def ship(*settings: str) -> None:
        catalogue.write_text("\n".join([f'[services."{LEDGER}"]', 'descriptors = "ledger.binpb"', *settings]))

    async def policy(mom: RunningMom) -> ServicePolicy | None:
        stream = mom.stub.WatchCatalogue(mom_service_pb2.WatchCatalogueRequest(), timeout=5)
        first = await stream.read()
        stream.cancel()
        (entry,) = first.services
        return describe(entry).policy if entry.HasField("author_settings") else None

    with running(tmp_path / "redis") as redis:
        ship("timeout_seconds = 2")
        async with (
            running_mom(redis.url, catalogue=catalogue) as mom,
            running_worker(Ledger(), mom=mom.target) as worker,
        ):
            both = await until(lambda: policy(mom), what="the registration")
            await until(lambda: worker.consumers[0].concurrency() == 2)
        ship()
        async with running_mom(redis.url, catalogue=catalogue) as mom:
            authors = await until(lambda: policy(mom), what="the catalogue")

    timeouts = [(one.methods["Legacy"].timeout_seconds, one.methods["Legacy"].queued_timeout_seconds)
                for one in (both, authors)]  # fmt: skip
    assert timeouts == [(2, 3600), (7, 3600)]
    assert both.concurrency == authors.concurrency == 2


async def test_a_gateway_follows_what_the_author_changed(tmp_path: Path) -> None:
    """A new version with the same proto and another policy would be treated as the old one until a restart."""
    async with staged(tmp_path) as stage:
        entry = shop.entry()
        entry.author_settings.timeout_seconds = 7
        stage.mom.announce(entry)

        async def followed() -> bool:
            (service,) = (await stage.gateway.get("/v1/services")).body["services"]
            return {method["timeoutSeconds"] for method in service["methods"]} == {7}

        await until(followed)
