"""The page's files, read from the package into memory and served with their ETags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

from poste_gateway.http.problem_types import NO_ROUTE
from poste_gateway.http.problems import Problem
from poste_gateway.http.responses import Response, tag_of, tagged

#: The page itself.
INDEX: Final = "index.html"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_PLAIN: Final = "text/plain; charset=utf-8"
#: The page's Content-Security-Policy: no other origins, nothing inline, no frames around it.
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    tag: str


class Files:
    """Every file of the page, by its path below `/ui/`."""

    def __init__(self) -> None:
        root = resources.files(__package__) / "static"
        self._files = {path: _read(path, file) for path, file in _walk(root)}

    def respond(self, request: web.BaseRequest, path: str) -> Response:
        """Answer with a file, or that the browser's copy of it is still good.

        Raises:
            Problem: There is no such file.
        """
        file = self._files.get(path)
        if file is None:
            raise Problem(NO_ROUTE, "The page has no such file.")
        return tagged(request, file.body, file.tag, content_type=file.content_type, headers=_HEADERS)


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _read(path: str, file: Traversable) -> _File:
    body = file.read_bytes()
    content_type = _TYPES.get(path.rpartition(".")[2], _PLAIN)
    return _File(body, content_type, tag_of(body))
