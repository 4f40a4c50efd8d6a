"""Generated from `proto/poste/v1`: regenerate with `nox -s proto`, never edit."""
