"""The courier: delivers the queued calls of services that have no consumer of their own, as ordinary gRPC calls.

::

    __main__ ─▶ rounds ─▶ round ─▶ delivery ─▶ concurrency_limit
        └─────▶ registration

`rounds` follows the catalogue: each service that the worker library never registered has a round, until it did. A round
is a consumer of the service's queue, under the protocol of every consumer, and the service's replicas, among which its
calls are spread as a gateway spreads them. To its service a courier is a client like any other.
"""

from poste.runtime.own_process import importing

with importing():
    import poste.queue.connection
    import poste.runtime.logs  # noqa: F401
