"""The page for people at `/ui`: its files, the shared snapshot of everything, and the stream that brings it."""
