"""HTTP: connections, responses and problems. Knows neither gRPC nor the middleware."""
