"""Traces: a call's story is one, from its client to its handler, on either road."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import redis.asyncio
from opentelemetry import context, trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support import shop
from support.collector import collecting
from support.deployment import LEDGER, SUM, Part, deployed
from support.gateway import answer, staged
from support.linked import linked
from support.waiting import until
from support.worker import running_worker
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.client import Client
from poste.domain import traceparents
from poste.domain.errors import StartError
from poste.runtime import sampling, spans, tracing
from poste.upstream.outgoing_call import OutgoingCall

PLACE, ORDER = f"/{shop.NAME}/Place", {"aString": "x"}
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"


@pytest.fixture
async def collector(monkeypatch):
    async with collecting() as one:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", one.url)
        # So that a test need not wait for it.
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield one


def lines(part: Part, event: str) -> list[dict]:
    """Its lines up to now: one may be written after its event was seen."""
    found = [json.loads(line) for line in part.log.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


async def test_a_queued_calls_spans_tell_one_connected_story(tmp_path, collector):
    """A search for where the time went would find a call that ends in the gateway, and a task from nowhere."""
    async with deployed(tmp_path, SUM) as one:
        worker = one.parts[-1]
        await worker.stop()
        await one.up(SUM, 0)
        reply = await one.ask("POST", f"/{SUM}/Add", {"a": 2, "b": 3}, Traceparent=TRACEPARENT)
        assert reply.status == 202
        worker.start()
        await one.ended([reply.headers["Location"]])
        (handled,) = await until(lambda: collector.of(f"{SUM}/Add", Span.SPAN_KIND_CONSUMER))
        (call,) = await until(lambda: collector.of(f"{SUM}/Add", Span.SPAN_KIND_SERVER))
        (kept,) = await until(lambda: collector.of(f"enqueue {SUM}", Span.SPAN_KIND_PRODUCER))
        (request,) = [line for line in lines(one.gateway, "request") if line.get("service") == SUM]
        (task,) = await until(lambda: lines(worker, "task"))

    assert (call.part, call.trace, call.parent) == ("poste-gateway", TRACE, CALLER)
    assert (kept.part, kept.trace, kept.parent) == ("poste-gateway", TRACE, call.id)
    assert (handled.part, handled.parent, handled.links) == ("poste-sum", "", ((TRACE, kept.id),))
    assert (call.attributes["poste.road"], call.attributes["poste.outcome"]) == ("queued", "QUEUED")
    assert request["trace_id"] == task["client_trace_id"] == TRACE
    assert task["trace_id"] == handled.trace != TRACE


async def test_a_direct_calls_spans_are_one_trace(tmp_path, collector):
    """The handler's time could not be distinguished from the way there and back."""
    async with deployed(tmp_path, SUM) as one:
        assert (await one.call(SUM, a=2, b=3)).status == 200
        found = await until(lambda: both(collector.of(f"{SUM}/Add", Span.SPAN_KIND_SERVER)))

    call, handled = sorted(found, key=lambda span: span.part)
    assert (call.part, call.parent) == ("poste-gateway", "")
    assert (handled.part, handled.trace, handled.parent) == ("poste-sum", call.trace, call.id)


async def test_what_its_client_does_not_record_nobody_does(tmp_path, collector):
    """A sampled-out call would leave pieces of a story at the collector, and cost as much as a recorded one."""
    unsampled = f"00-{TRACE}-{CALLER}-00"
    async with deployed(tmp_path, SUM) as one:
        await one.ended(
            [
                (
                    await one.ask("POST", f"/{SUM}/Add", {"a": 2, "b": 3}, Prefer="respond-async", Traceparent=header)
                ).headers["Location"]
                for header in (unsampled, TRACEPARENT)
            ]
        )
        # What came first would be here before the last.
        await until(lambda: collector.of(f"{SUM}/Add", Span.SPAN_KIND_CONSUMER))
        await until(lambda: collector.of(f"{SUM}/Add", Span.SPAN_KIND_SERVER))
        tasks = await until(lambda: both(lines(one.parts[-1], "task")))

    assert len(collector.of(f"{SUM}/Add", Span.SPAN_KIND_CONSUMER)) == 1
    assert len(collector.of(f"{SUM}/Add", Span.SPAN_KIND_SERVER)) == 1
    assert sorted(task["trace_id"] == TRACE for task in tasks) == [False, True]


async def test_what_is_not_drawn_nobody_records_nor_draws_again(tmp_path, collector, monkeypatch):
    """Services would begin stories of their own for sampled-out calls, or each call pay for a trace unseen."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    async with deployed(tmp_path, SUM) as one, redis.asyncio.Redis.from_url(one.redis.url) as store:
        worker = one.parts[-1]
        # That services draw for themselves unless told.
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "1")
        await worker.stop()
        await one.up(SUM, 0)
        kept = await one.queue(SUM, a=2, b=3)
        (key,) = [key async for key in store.scan_iter("poste:*:task:*")]
        place = await store.hget(key, "p")
        worker.start()
        await one.ended([kept])
        await one.up(SUM)
        assert (await one.call(SUM, a=2, b=3)).status == 200
        # One that its client records comes last, and is here last.
        assert (await one.ask("POST", f"/{SUM}/Add", {"a": 2, "b": 3}, Traceparent=TRACEPARENT)).status == 200
        found = await until(lambda: both(collector.of(f"{SUM}/Add", Span.SPAN_KIND_SERVER)))
        (task,) = await until(lambda: lines(worker, "task"))

    assert place == traceparents.UNRECORDED.encode()
    assert {span.trace for span in found} == {span.trace for span in collector.spans} == {TRACE}
    assert "trace_id" not in task
    assert "client_trace_id" not in task


async def test_a_recorded_calls_story_goes_on_after_the_gap(tmp_path, collector, monkeypatch):
    """At one in a hundred, drawn at each part, one queued call in ten thousand would be traced to its end."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    async with deployed(tmp_path, SUM) as one:
        reply = await one.ask("POST", f"/{SUM}/Add", {"a": 2, "b": 3}, Prefer="respond-async", Traceparent=TRACEPARENT)
        await one.ended([reply.headers["Location"]])
        (handled,) = await until(lambda: collector.of(f"{SUM}/Add", Span.SPAN_KIND_CONSUMER))

    assert [trace_ for trace_, _ in handled.links] == [TRACE]


def test_a_trace_is_drawn_once(monkeypatch):
    """Were the SDK to draw again, a share of a tenth would be a hundredth."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    sampler = sampling.HeadSampler()
    tracer = TracerProvider(sampler=sampler, id_generator=sampler).get_tracer("one")
    won = [spans.Span(tracer, "GET", "server", parent="", link="") for _ in range(200) if sampler.start_trace()]

    assert 0 < len(won) < 200
    assert all(traceparents.recorded(span.traceparent) for span in won)
    assert len({traceparents.trace_id(span.traceparent) for span in won}) == len(won)
    others = [spans.Span(tracer, "GET", "server", parent="", link="") for _ in range(200)]
    assert 0 < sum(traceparents.recorded(span.traceparent) for span in others) < 200


@pytest.mark.parametrize("share", ["a tenth", "1.5", "-1", "nan"])
def test_a_share_that_is_none_is_told_at_the_start(monkeypatch, share):
    """Every call would be recorded where a few were meant."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)

    with pytest.raises(StartError, match=f"OTEL_TRACES_SAMPLER_ARG is no share from 0 to 1: {share}"):
        sampling.HeadSampler()


@pytest.mark.parametrize(
    ("sampler", "wins"), [("always_off", False), ("parentbased_always_off", False), ("always_on", True)]
)
def test_the_samplers_without_a_share_record_all_or_nothing(monkeypatch, sampler, wins):
    """An operator who turned traces off would pay for them all the same."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)

    assert sampling.HeadSampler().start_trace() is wins


@pytest.mark.parametrize("traceparent", [traceparents.UNRECORDED, f"00-{TRACE}-{CALLER}-00"])
async def test_a_handlers_own_spans_follow_its_call(traceparent, monkeypatch):
    """Each would begin a trace, of a call that was sampled out."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("an author's")
    monkeypatch.setattr(tracing._Tracing, "tracer", tracer)
    monkeypatch.setattr(tracing._Tracing, "spans", spans)

    class Curious(ledger_pb2_grpc.LedgerServiceServicer):
        async def Look(self, request, context):  # noqa: N802, ARG002 - the proto's name
            with tracer.start_as_current_span("within"):
                return ledger_pb2.RecordResponse()

    async with running_worker(Curious()) as worker, linked(worker.target) as replica:
        await replica.call(OutgoingCall("/testing.v1.LedgerService/Look", b"", "one", traceparent), 5.0)
        assert exporter.get_finished_spans() == ()
        await replica.call(OutgoingCall("/testing.v1.LedgerService/Look", b"", "two", TRACEPARENT), 5.0)
        within, around = exporter.get_finished_spans()

    assert within.parent is not None
    assert within.parent.span_id == around.context.span_id
    assert around.context.trace_id == int(TRACE, 16)


def both(found: list) -> list:
    return found if len(found) == 2 else []


async def test_a_trace_goes_on_where_nobody_makes_spans(tmp_path):
    """A client's trace would break at every Poste that has no collector, and its log lines could not be found by it."""
    async with deployed(tmp_path, SUM) as one, redis.asyncio.Redis.from_url(one.redis.url) as store:
        worker = one.parts[-1]
        traced = await one.ask("POST", f"/{SUM}/Add", {"a": 2, "b": 3}, Prefer="respond-async", Traceparent=TRACEPARENT)
        await one.ended([traced.headers["Location"]])
        (task,) = await until(lambda: lines(worker, "task"))
        worker.kill()
        await one.queue(SUM, a=2, b=3)
        (untraced,) = [key async for key in store.scan_iter("poste:*:task:*") if await store.hget(key, "s") == b"Q"]
        fields = await store.hkeys(untraced)

    assert task["trace_id"] == TRACE
    assert "client_trace_id" not in task
    assert b"p" not in fields


async def test_whatever_a_handler_logs_names_its_trace(tmp_path):
    """An error in the log could not be distinguished from another call's."""
    async with deployed(tmp_path, LEDGER) as one:
        fails = {"line": "raises", "raiseText": "told to"}
        await one.ask("POST", f"/{LEDGER}/Store", fails, Prefer="no-queue", Traceparent=TRACEPARENT)
        (failed,) = await until(lambda: lines(one.parts[-1], "handler failed"))
        (request,) = await until(lambda: [line for line in lines(one.gateway, "request") if "service" in line])

    assert failed["trace_id"] == request["trace_id"] == TRACE


async def test_a_plain_services_handler_is_told_its_trace(tmp_path):
    """Its own instrumentation goes by it; what is no traceparent is not passed on."""
    async with staged(tmp_path, answer) as stage:
        await stage.gateway.post(PLACE, ORDER, Traceparent=TRACEPARENT)
        await stage.gateway.post(PLACE, ORDER, Traceparent="made up")
        await stage.gateway.post(PLACE, ORDER)
        told = [metadata.get("traceparent") for metadata in stage.shops[0].metadata]

    assert told == [TRACEPARENT, None, None]


async def test_a_linked_services_handler_is_told_its_trace():
    """The same by the link, whose frames have no metadata."""
    told = []

    class Curious(ledger_pb2_grpc.LedgerServiceServicer):
        async def Look(self, request, context):  # noqa: N802, ARG002 - the proto's name
            told.append(dict(context.invocation_metadata()).get("traceparent"))
            return ledger_pb2.RecordResponse()

    async with running_worker(Curious()) as worker, linked(worker.target) as replica:
        await replica.call(OutgoingCall("/testing.v1.LedgerService/Look", b"", "one", TRACEPARENT), 5.0)
        await replica.call(OutgoingCall("/testing.v1.LedgerService/Look", b"", "two"), 5.0)

    assert told == [TRACEPARENT, None]


def test_others_than_postes_parts_are_told_by_w3cs_rules():
    """A service without the library would take its call for one in no trace, and begin one."""
    spelt = traceparents.spelt(traceparents.UNRECORDED)

    assert traceparents.read(spelt) == spelt
    assert not traceparents.recorded(spelt)
    assert traceparents.spelt(spelt) == spelt
    assert traceparents.spelt("") == ""


@pytest.mark.parametrize(
    ("header", "read"),
    [
        (TRACEPARENT, TRACEPARENT),
        (f"cc-{TRACE}-{CALLER}-01-what-comes-later", TRACEPARENT),
        (f"ff-{TRACE}-{CALLER}-01", ""),
        (f"00-{'0' * 32}-{CALLER}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-{CALLER}-01", ""),
        (f"00-{TRACE}-{CALLER}-01x", ""),
        (f"00-{TRACE}-{CALLER}", ""),
        (traceparents.UNRECORDED, ""),
        ("", ""),
        ("x" * 10_000, ""),
    ],
)
def test_only_a_traceparent_is_taken_for_one(header, read):
    """A client's own words would stand in every line of the log, and go on to every service."""
    assert traceparents.read(header) == read


def test_a_collector_without_what_sends_to_it_is_told_at_the_start():
    """Spans that an operator waits for would never come."""
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from poste.domain.errors import StartError\n"
        "from poste.runtime import tracing\n"
        "try: tracing.configure('sum')\n"
        "except StartError as error: print(error)\n"
    )
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True, timeout=60
    )

    assert "poste[tracing]" in done.stdout


async def test_a_traced_programs_call_is_a_part_of_its_trace(tmp_path):
    """Its trace would end where Poste's own client begins."""
    async with staged(tmp_path, answer) as stage, Client(stage.gateway.url) as client:
        within = trace.set_span_in_context(
            trace.NonRecordingSpan(trace.SpanContext(int(TRACE, 16), int(CALLER, 16), True, trace.TraceFlags(1)))
        )
        token = context.attach(within)
        try:
            await client.call(f"{shop.NAME}/Quote", ORDER)
        finally:
            context.detach(token)
        await client.call(f"{shop.NAME}/Quote", ORDER)

        assert [one.get("traceparent") for one in stage.shops[0].metadata] == [TRACEPARENT, None]


async def test_whatever_is_logged_of_a_traced_request_says_so(tmp_path, capsys):
    """From the line that wakes an operator, the call that caused it could not be found."""
    async with staged(tmp_path, answer) as stage:
        reply = await stage.gateway.post(PLACE, ORDER, Prefer="respond-async")
        stage.mom.tasks.clear()
        place = reply.headers["Location"]
        assert (await stage.gateway.get(place, Traceparent=TRACEPARENT)).body["type"] == "/problems/record-lost"
        (lost,) = [line for line in capsys.readouterr().out.splitlines() if "record lost" in line]
        await stage.gateway.get(place)
        (later,) = [line for line in capsys.readouterr().out.splitlines() if "record lost" in line]

    assert f"trace_id={TRACE}" in lost
    assert "trace_id" not in later
