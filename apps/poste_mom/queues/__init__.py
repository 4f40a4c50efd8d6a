"""All queues: which there are, what each may hold, and what they refuse."""
