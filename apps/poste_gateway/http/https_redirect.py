"""The plain HTTP port of a gateway that serves HTTPS: it redirects there, and answers nothing else but the probes."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from poste_gateway.http.hosts import HOST
from poste_gateway.http.probes import PROBES
from poste_gateway.http.problem_types import INVALID_REQUEST
from poste_gateway.http.problems import Problem, problem_response
from poste_gateway.http.responses import Response
from poste_gateway.http.server import Handle
from poste_gateway.http.tls import Certificate

_HTTPS: Final = 443
#: For so long browsers come by HTTPS alone (RFC 6797): a year, in seconds.
_STRICT: Final = "max-age=31536000"


def strict(handle: Handle) -> Handle:
    """Return what answers the HTTPS port's requests as `handle` does, and has browsers come by nothing else."""

    async def answer(request: web.BaseRequest) -> Response | web.StreamResponse:
        response = await handle(request)
        response.headers["Strict-Transport-Security"] = _STRICT
        return response

    return answer


class Redirect:
    """Answers the plain port's requests."""

    def __init__(self, handle: Handle, certificate: Certificate, port: int) -> None:
        """Take what there is to know.

        Args:
            handle: Answers the probes.
            certificate: Says which hosts this is: whoever can have a client name another leads it nowhere.
            port: Where clients find https.
        """
        self._handle, self._certificate = handle, certificate
        self._authority = "" if port == _HTTPS else f":{port}"

    async def handle(self, request: web.BaseRequest) -> Response | web.StreamResponse:
        """Answer one request."""
        if request.path in PROBES:
            # Health checks come from within the deployment, and need no encryption.
            return await self._handle(request)
        host = HOST.fullmatch(request.headers.get("Host", ""))
        target = request.rel_url.raw_path_qs
        if host is None or not target.startswith("/"):
            problem = Problem(INVALID_REQUEST, "This port leads to https, and the request names no host to go to.")
            return problem_response(problem, "")
        if not self._certificate.is_for(host[1]):
            told = f"This port leads to https, where the certificate is for other hosts than {host[1]}."
            return problem_response(Problem(INVALID_REQUEST, told), "")
        # 308, not 301: a POST stays one.
        location = f"https://{host[1]}{self._authority}{target}"
        return Response(status=308, headers={"Location": location})
