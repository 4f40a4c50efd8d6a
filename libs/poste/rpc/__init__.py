"""The only room that knows gRPC in general: channels, servers, statuses, descriptors."""
