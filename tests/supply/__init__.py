"""What the image brings along, judged: `nox -s supply`."""
