"""The only room that knows Redis: its keys, its scripts, the queue and its maintenance. Knows no gRPC and no HTTP."""
