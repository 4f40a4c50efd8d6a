"""Services as those who call them see them: replicas, their connections and links, and which of them a call goes to.

::

    replica_pool ─▶ replica ─▶ link, failure
          │            └─────▶ circuit_breaker
          └─▶ shares
"""
