"""Services as those who call them see them: replicas, their connections and links, and which of them a call goes to.

::

    replica_pool ─▶ replica ─▶ link, failure
          │            ├─────▶ lone_calls ─▶ answer_turns ─▶ answer_history
          │            └─────▶ circuit_breaker
          └─▶ shares
"""
