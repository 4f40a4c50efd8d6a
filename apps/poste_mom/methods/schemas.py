"""Schemas: kept for the calls that are accepted under them, and compared with those of today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

from poste.domain.errors import StoreError
from poste.queue.schema_store import SchemasFull
from poste.rpc.schemas.schema import is_fingerprint
from poste.runtime import logs
from poste.runtime.log_throttle import LogThrottle
from poste.v1 import mom_service_pb2 as pb
from poste_mom.methods.answers import refuse
from poste_mom.queues.schemas import ServedUnknown

if TYPE_CHECKING:
    from poste_mom.methods.answers import Context
    from poste_mom.queues.schemas import Schemas

#: How many differences are told, and how many characters of each.
_MOST_TOLD: Final = 5
_MOST_CHARACTERS: Final = 500
#: How large a schema's text may be: no service's descriptors are so large.
_MOST_BYTES: Final = 4 * 1024 * 1024
#: How often it is logged that there is no room for schemas, in seconds.
_FULL_SECONDS: Final = 60.0

_log: Final = logs.get("schemas")


class SchemaServicer:
    """Serves `KeepSchema` and `JudgeSchema`."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._seldom = LogThrottle(_log, "error", period_seconds=_FULL_SECONDS)

    async def KeepSchema(self, request: pb.KeepSchemaRequest, context: Context) -> pb.KeepSchemaResponse:
        if len(request.text) > _MOST_BYTES:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a schema has at most {_MOST_BYTES} bytes")
        try:
            await self._schemas.keep(request.text)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:_MOST_CHARACTERS])
        except SchemasFull as error:
            self._seldom.write("schema not kept", reason=str(error))
            return pb.KeepSchemaResponse()
        except StoreError as error:
            await refuse(context, error)
        return pb.KeepSchemaResponse(kept=True)

    async def JudgeSchema(self, request: pb.JudgeSchemaRequest, context: Context) -> pb.JudgeSchemaResponse:
        if not (is_fingerprint(request.accepted) and is_fingerprint(request.served)):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "that is no schema's fingerprint")
        try:
            found = await self._schemas.differences(request.accepted, request.served)
            if not found:
                return pb.JudgeSchemaResponse(verdict=pb.SCHEMA_VERDICT_COMPATIBLE)
            elsewhere = await self._schemas.fits_elsewhere(request.service, request.method, request.accepted)
        except ServedUnknown:
            return pb.JudgeSchemaResponse(verdict=pb.SCHEMA_VERDICT_UNKNOWN)
        except StoreError as error:
            await refuse(context, error)
        told = [one[:_MOST_CHARACTERS] for one in found[:_MOST_TOLD]]
        if len(found) > _MOST_TOLD:
            told.append(f"and {len(found) - _MOST_TOLD} more")
        verdict = pb.SCHEMA_VERDICT_ELSEWHERE if elsewhere else pb.SCHEMA_VERDICT_BREAKING
        return pb.JudgeSchemaResponse(verdict=verdict, differences=told)
