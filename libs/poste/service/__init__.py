"""The worker library: one call serves a gRPC servicer on both roads, the direct one and its queue.

An author needs `serve`, and `policy` to say how calls are treated. The rest is the process around the handlers
(`process`), the two roads (`direct_road`, `queued_road`) and what they share: `handlers` runs a handler, `context` is
what it sees, `outcome` what it ended with.
"""

from __future__ import annotations

from poste.service.policies import policy
from poste.service.process import serve

__all__ = ["policy", "serve"]
