"""Generated from `proto/calculator/v1`: regenerate with `nox -s proto`, never edit."""
