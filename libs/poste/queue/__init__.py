"""The only room that knows Redis: its keys, its scripts, the queue, the reaper. Knows no gRPC and no HTTP."""
