"""Prove the guarantees under faults: `python -m chaos` runs real parts, breaks them by a seeded plan, and judges."""
