"""The bench: what the issue of speed promises, measured as ratios within one run. `nox -s bench`; see `__main__.py`."""
