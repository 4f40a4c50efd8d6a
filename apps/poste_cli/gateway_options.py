"""Options of commands that call a gateway: its URL, or the data folder of a `poste up`; the key that is shown there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from poste.client import gateway_url
from poste.runtime import secret_files
from poste_cli.local import folder
from poste_cli.local_options import data_option

#: Under what a command's context has the client's key.
_KEY: Final = "poste_cli.key"


def _checked_url(_context: click.Context, _option: click.Parameter, value: str) -> str:
    try:
        return gateway_url(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _remember_key(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is not None and not context.resilient_parsing:
        context.meta[_KEY] = secret_files.read(path, "your key").decode(errors="replace").strip()


def key_of(context: click.Context) -> str | None:
    """Return the key that a command's requests bring; None if they bring none."""
    key: str | None = context.meta.get(_KEY)
    return key


def _gateway_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options `--url`, `--key-file`, `--data` and `--json` to a command."""
    url = click.option(
        "--url",
        envvar="POSTE_URL",
        default="http://localhost:8080",
        show_default="that of the `poste up` in --data, or http://localhost:8080",
        show_envvar=True,
        callback=_checked_url,
        help="The gateway; HOST:PORT will do.",
    )
    key_file = click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        envvar="POSTE_KEY_FILE",
        show_envvar=True,
        expose_value=False,
        callback=_remember_key,
        help="The file with your key, for a gateway that asks for one.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    return url(key_file(data_option(as_json(command))))


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the gateway to a command, which gets `url`; and `--json`."""

    @functools.wraps(command)
    def to_gateway(*, url: str, data: Path, **others: Any) -> None:
        command(url=_gateway(url, data)[0], **others)

    return _gateway_options(to_gateway)


def with_folder(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `options` adds; the command gets `data`, the folder of a `poste up`, besides."""

    @functools.wraps(command)
    def to_both(*, url: str, data: Path, **others: Any) -> None:
        command(url=_gateway(url, data)[0], data=data, **others)

    return _gateway_options(to_both)


def operator_options(command: Callable[..., None]) -> Callable[..., Any]:
    """Add what `options` adds, and `--token-file`: the command gets `token`, None if none is found."""
    token_file = click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        envvar="POSTE_OPERATOR_TOKEN_FILE",
        show_envvar=True,
        help="The file with the operators' token, or an operator's key; that of a `poste up` is found by its folder.",
    )

    @functools.wraps(command)
    def as_operator(*, url: str, data: Path, token_file: Path | None, **others: Any) -> None:
        url, own = _gateway(url, data)
        token = folder.operator_token(data) if own else None
        if token_file is not None:
            token = secret_files.read(token_file, "the operators' token").decode(errors="replace").strip()
        command(url=url, token=token, **others)

    return _gateway_options(token_file(as_operator))


def gateway_of(context: click.Context) -> str:
    """Return the URL of the gateway that a command's options name; for completion, before the command is run.

    Raises:
        StartError: No `poste up` runs in a folder that was named, and no gateway was.
    """
    return _find(context, context.params["url"], context.params["data"])[0]


def _gateway(url: str, data: Path) -> tuple[str, bool]:
    return _find(click.get_current_context(), url, data)


def _find(context: click.Context, url: str, data: Path) -> tuple[str, bool]:
    """Return which gateway is asked, and whether it is that of the `poste up` in the data folder.

    Raises:
        StartError: No `poste up` runs in a folder that was named, and no gateway was.
    """

    def given(option: str) -> bool:
        return context.get_parameter_source(option) is not ParameterSource.DEFAULT

    running = folder.found(data)
    if running is None:
        if given("data") and not given("url"):
            raise folder.not_running(data)
        return url, False
    # A token that was found is sent only to the gateway that it belongs to.
    own = not given("url") or _same(url, running.gateway)
    return (running.gateway if own else url), own


def _same(url: str, gateway: str) -> bool:
    """Return whether a URL leads to a gateway of this machine."""
    asked, own = urlsplit(url), urlsplit(gateway)
    return asked.hostname in {"localhost", own.hostname} and (asked.scheme, asked.port) == (own.scheme, own.port)
