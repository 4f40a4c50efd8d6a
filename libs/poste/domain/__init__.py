"""What a task is and what may become of it. Knows the standard library only: no gRPC, no Redis, no HTTP."""
