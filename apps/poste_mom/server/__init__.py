"""The middleware's gRPC server: messages are read in turns, validated, and passed to the methods."""
