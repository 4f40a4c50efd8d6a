"""A stand-in for a part: serves `/readyz` as long as a file says so, and writes down when it starts and stops.

Its folder is its only argument; files in it tell it what to do: `NAME.ready`, `NAME.broken`,
`NAME.cant-start`, `NAME.deaf`. It writes to `story`.
"""

from __future__ import annotations

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import FrameType


def main(folder: Path, name: str) -> None:
    def tell(what: str) -> None:
        with (folder / "story").open("a") as story:
            story.write(f"{name} {what}\n")

    def stop(_number: int, _frame: FrameType | None) -> None:
        if (folder / f"{name}.deaf").exists():
            return
        tell("stops")
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    tell("starts")
    if (folder / f"{name}.broken").exists():
        sys.exit(f"{name}: something else\n")
    if (folder / f"{name}.cant-start").exists():
        sys.stderr.write(f"poste: {name} has no port\n")
        sys.exit(2)

    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ready = (folder / f"{name}.ready").exists()
            self.send_response(200 if ready else 503)
            self.end_headers()
            self.wfile.write(b"" if ready else b"not yet\n")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    HTTPServer(("127.0.0.1", int(os.environ["POSTE_PORT"])), Probe).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
