"""The only room that knows gRPC in general: channels, servers, statuses, descriptors, ProtoJSON."""

from __future__ import annotations

import os

# gRPC's core writes lines of its own to stderr: of every peer that stops in good order, of a port that is taken. What
# matters comes as a status or an exception too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
