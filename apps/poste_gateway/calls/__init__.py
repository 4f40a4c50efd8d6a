"""One call, from its body to its response or to its place in the queue."""
