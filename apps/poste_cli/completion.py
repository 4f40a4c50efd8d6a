"""What a shell completes beside verbs and options: services, methods, queues and fields, as the gateway lists them.

Nothing is completed where no gateway answers soon: a shell waits for it, and a person for the shell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import click
from click.shell_completion import CompletionItem

from poste.client import Client, MessageField, MethodOutline
from poste.domain.errors import PosteError
from poste_cli import gateway_options

#: How long the gateway may take, in seconds.
_SECONDS: Final = 2.0
_BOOLS: Final = ("true", "false")

FoundT = TypeVar("FoundT")


def services(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a service's name, which is its queue's too."""

    async def names(client: Client) -> list[str]:
        return [service.name for service in await client.services()]

    return _beginning(incomplete, _ask(context, names))


def methods(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete `SERVICE/METHOD`."""

    async def names(client: Client) -> list[str]:
        return [method.path.lstrip("/") for service in await client.services() for method in service.methods]

    return _beginning(incomplete, _ask(context, names))


def fields(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete `FIELD=VALUE`: the fields that are not given yet, and the values of enums."""
    given: tuple[str, ...] = context.params.get("values") or ()
    service, _, method = str(context.params.get("method")).partition("/")

    async def outline(client: Client) -> list[MethodOutline]:
        return [await client.method(service, method)]

    for one in _ask(context, outline):
        known = one.messages.get(one.request, ())
        # Bash takes `a=b` for three words.
        if given and given[-1] == "=":
            return _beginning(incomplete, _values(one, known, given[-2:-1]))
        if incomplete == "=":
            return _beginning("", _values(one, known, given[-1:]))
        name, equals, value = incomplete.partition("=")
        if equals:
            found = _beginning(value, _values(one, known, [name]))
            return [CompletionItem(f"{name}={item.value}") for item in found]
        taken = {word.partition("=")[0] for word in given}
        free = [field for field in known if not taken & {field.name, field.json_name} or field.repeated]
        return [CompletionItem(f"{field.name}=", help=field.type) for field in free if field.name.startswith(name)]
    return []


def _values(outline: MethodOutline, known: Iterable[MessageField], names: Iterable[str]) -> tuple[str, ...]:
    """Return the values that a field can have, if these are few and known."""
    wanted = {*names}
    kind = next((field.type for field in known if wanted & {field.name, field.json_name}), "")
    return _BOOLS if kind == "bool" else outline.enums.get(kind, ())


def _ask(context: click.Context, look: Callable[[Client], Awaitable[list[FoundT]]]) -> list[FoundT]:
    async def ask() -> list[FoundT]:
        async with asyncio.timeout(_SECONDS), _client(context) as client:
            return await look(client)

    try:
        return asyncio.run(ask())
    except (PosteError, TimeoutError, ValueError):
        return []


def _client(context: click.Context) -> Client:
    return Client(gateway_options.gateway_of(context), key=gateway_options.key_of(context))


def _beginning(incomplete: str, words: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
