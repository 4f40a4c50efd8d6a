"""The client side of a service: its pool of replicas, their connections and links.

::

    replica_pool ─▶ replica ─▶ link, failure
          │            ├─────▶ lone_calls ─▶ answer_turns ─▶ answer_history
          │            └─────▶ circuit_breaker
          └─▶ shares

All of them take a call as an `outgoing_call`.
"""
