"""The only room that knows gRPC in general: channels, servers, statuses, descriptors, ProtoJSON."""

from __future__ import annotations

import os

# gRPC's core tells on stderr of every peer that stops in good order; what matters comes as a status.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
