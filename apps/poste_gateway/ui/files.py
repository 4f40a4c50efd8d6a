"""The pages' files, as the package has them: read when they are first asked for, and kept and served compressed."""

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
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class _File:
    packed: bytes
    tag: str
    headers: Mapping[str, str]
    content_type: str


class Files:
    """Every file of the pages, by its path below `/ui/`."""

    def __init__(self) -> None:
        self._sources = dict(_walk(resources.files(__package__) / "static"))
        self._files: dict[str, _File] = {}

    async def respond(self, request: web.BaseRequest, path: str) -> Response:
        """Answer with a file, or that the browser's copy of it is still good.

        Raises:
            Problem: There is no such file.
        """
        source = self._sources.get(path)
        if source is None:
            raise Problem(NO_ROUTE, "The page has no such file.")
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = await asyncio.to_thread(_read, path, source)
        body, tag, headers = file.packed, f"{file.tag}-gzip", {**file.headers, "Content-Encoding": "gzip"}
        if not weights.read(request.headers.get("Accept-Encoding", "")).of("gzip", "*"):
            body, tag, headers = await asyncio.to_thread(gzip.decompress, body), file.tag, {**file.headers}
        return tagged(request, body, tag, content_type=file.content_type, headers=headers)


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _read(path: str, source: Traversable) -> _File:
    body = source.read_bytes()
    return _File(
        # The same in every process, whenever it is read: so its tag can be that of what it holds.
        packed=gzip.compress(body, 6, mtime=0),
        tag=tag_of(body),
        headers={**_HEADERS, "Content-Security-Policy": _POLICIES.get(path, _STRICT)},
        content_type=_TYPES.get(path.rpartition(".")[2], _PLAIN),
    )
