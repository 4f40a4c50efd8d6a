"""The pages' files, as the package has them, compressed for who takes that: each form is made when first asked for."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

from poste_gateway.http import weights
from poste_gateway.http.problem_types import NO_ROUTE
from poste_gateway.http.problems import Problem
from poste_gateway.http.responses import Response, tag_of, tagged

#: The page that shows what happens, and the one that describes what can be called.
INDEX: Final = "index.html"
DOCS: Final = "docs.html"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_PLAIN: Final = "text/plain; charset=utf-8"
#: A page's Content-Security-Policy: no other origins, nothing inline, no frames around it.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'{images}; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_STRICT: Final = _POLICY.format(images="") + "; require-trusted-types-for 'script'"
#: Swagger UI's style sheet has its icons in it, and it sets HTML that it has cleaned as text, which is no trusted type.
_POLICIES: Final = {DOCS: _POLICY.format(images=" data:")}
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    tag: str
    content_type: str
    headers: Mapping[str, str]


class Files:
    """Every file of the pages, by its path below `/ui/`."""

    def __init__(self) -> None:
        self._sources = dict(_walk(resources.files(__package__) / "static"))
        #: By path, and whether it is compressed.
        self._files: dict[tuple[str, bool], _File] = {}

    async def respond(self, request: web.BaseRequest, path: str) -> Response:
        """Answer with a file, or that the browser's copy of it is still good.

        Raises:
            Problem: There is no such file.
        """
        source = self._sources.get(path)
        if source is None:
            raise Problem(NO_ROUTE, "The page has no such file.")
        packed = weights.takes_gzip(request)
        file = self._files.get((path, packed))
        if file is None:
            file = self._files[path, packed] = await asyncio.to_thread(_read, path, source, packed=packed)
        return tagged(request, file.body, file.tag, content_type=file.content_type, headers={**file.headers})


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _read(path: str, source: Traversable, *, packed: bool) -> _File:
    body = source.read_bytes()
    headers = {**_HEADERS, "Content-Security-Policy": _POLICIES.get(path, _STRICT)}
    if packed:
        # Without a time in it: its tag is the same at every gateway.
        body = gzip.compress(body, 6, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return _File(body, tag_of(body), _TYPES.get(path.rpartition(".")[2], _PLAIN), headers)
