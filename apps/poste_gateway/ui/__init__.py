"""The page for people at `/ui`: its files, the shared look at everything, and the stream that brings it."""
