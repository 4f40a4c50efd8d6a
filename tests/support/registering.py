"""Services that were up once: before that, none is known to take its calls from a queue, and none is kept."""

from __future__ import annotations

from collections.abc import Mapping

from testing.v1 import ledger_pb2

from calculator.v1 import multiplication_pb2, subtraction_pb2, sum_pb2
from poste.rpc.channels import connect
from poste.rpc.credentials import Secured
from poste.rpc.descriptor_sets import file_descriptor_set
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc

#: Nothing listens there (the discard port): where a replica was that is gone.
GONE = "127.0.0.1:9"
_FILES: Mapping[str, object] = {
    name: module.DESCRIPTOR
    for module in (sum_pb2, subtraction_pb2, multiplication_pb2, ledger_pb2)
    for name in (service.full_name for service in module.DESCRIPTOR.services_by_name.values())
}


async def been_up(mom: str, *services: str, secured: Secured | None = None) -> None:
    """Register a replica of each service as its worker would, and be gone. `mom` is the middleware's gRPC target."""
    async with connect(mom, library=True, secured=secured) as channel:
        stub = mom_service_pb2_grpc.MomServiceStub(channel)
        for service in services:
            request = mom_service_pb2.RegisterServiceRequest(
                service=service, file_descriptor_set=file_descriptor_set(_FILES[service]), address=GONE
            )
            await stub.RegisterService(request, timeout=20, wait_for_ready=True)
            stopped = mom_service_pb2.WithdrawReplicaRequest(service=service, replica=GONE)
            await stub.WithdrawReplica(stopped, timeout=20)
