"""The gateway: REST in, gRPC out, and the post office for when a service is away. Stateless; never touches Redis."""
