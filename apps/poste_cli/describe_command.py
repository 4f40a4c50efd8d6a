"""`poste describe`: what a method is called by, what its messages are made of, and an example to paste."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import click

from poste.client import Client, MessageField, Method, MethodOutline
from poste.client.answers import UNARY
from poste_cli import asking, completion, examples, gateway_options, printing
from poste_cli.exits import FAILURE, OK


@click.command()
@click.argument("name", metavar="SERVICE[/METHOD]", shell_complete=completion.methods)
@gateway_options.options
def describe(name: str, url: str, as_json: bool) -> None:
    """Show a method: its routes, its fields with their types, and an example; or each method of a service.

    Exit code: 0, 1 there is none, 2 wrong usage or no gateway.
    """

    async def work(client: Client) -> int:
        service, slash, method = name.strip("/").partition("/")
        names = [method] if slash else await _methods(client, service)
        found = [await client.method(service, one) for one in names]
        if not found:
            printing.complain(
                f"there is no service {service} with methods to call; `poste services` lists those there are"
            )
            return FAILURE
        if as_json:
            documents = [dict(one.document) for one in found]
            printing.compact(documents[0] if slash else documents)
            return OK
        for number, one in enumerate(found):
            if number:
                click.echo()
            _show(one, url)
        return OK

    asking.ask(url, work, as_json=as_json)


async def _methods(client: Client, service: str) -> list[str]:
    return [method.name for one in await client.services() if one.name == service for method in one.methods]


def _show(outline: MethodOutline, url: str) -> None:
    method = outline.method
    away = "its calls are kept" if method.away == "queue" else "its calls are refused"
    printing.facts(
        {
            "method": f"{outline.service}/{method.name}",
            "routes": ", ".join(method.routes),
            "idempotent": "yes" if method.idempotent else "no: a call that may have run is not run again",
            "if away": away,
            "takes up to": _times(outline.document),
            "streams": None if method.kind == UNARY else _streams(method),
            "request": outline.request,
            "response": outline.response,
        }
    )
    for route, reason in method.not_served.items():
        printing.line(f"not served: {route}: {reason}")
    for message, fields in outline.messages.items():
        click.echo()
        printing.line(message)
        printing.table(("  FIELD", "TYPE", ""), [_row(field) for field in fields])
    for enum, values in outline.enums.items():
        click.echo()
        printing.line(f"{enum}: {', '.join(values)}")
    if not method.callable:
        return
    click.echo()
    for example in _examples(outline, url):
        printing.verbatim(example)


def _times(document: Mapping[str, Any]) -> str:
    direct, kept = document["timeoutSeconds"], document.get("queuedTimeoutSeconds")
    return f"{direct:g} s" if kept is None else f"{direct:g} s, {kept:g} s once it is kept"


def _streams(method: Method) -> str:
    if not method.callable:
        return "it takes a stream: it is called by gRPC, not by REST"
    return "each message of its answer is a line, or an event"


def _row(field: MessageField) -> tuple[str, str, str]:
    kind = f"map of {field.key_type} to {field.type}" if field.key_type else field.type
    said = (
        "required" if field.required else "",
        "repeated" if field.repeated else "",
        f"one of {field.oneof}" if field.oneof else "",
    )
    return f"  {field.name}", kind, ", ".join(filter(None, said))


def _examples(outline: MethodOutline, url: str) -> Iterator[str]:
    yield f"poste call {outline.service}/{outline.method.name} {examples.arguments(outline)}".rstrip()
    body = shlex.quote(json.dumps(examples.request(outline), ensure_ascii=False))
    yield f"curl --json {body} {url}{outline.method.path}"
