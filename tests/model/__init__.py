"""The queued road's protocol as an explicit-state model: every interleaving of its steps under faults, explored."""
