"""What verbs print on a terminal where there are hundreds of everything: a gateway's listings, played."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.cli import poste
from support.terminal import on_terminal

METHOD = {"notServed": [], "idempotent": False, "away": "queue"}
NOTHING = {
    **dict.fromkeys(("queued", "running", "delayed", "scheduled", "dead", "heldBytes"), 0),
    "maxHeldBytes": 2_100_000_000,
    "oldestAgeSeconds": None,
    "paused": False,
}


def service(name):
    methods = [METHOD | {"name": f"M{n}", "path": f"/{name}/M{n}", "routes": [f"POST /{name}/M{n}"]} for n in range(10)]
    return {"name": name, "availability": "away", "queueable": True, "queued": 0, "methods": methods}


def listings(number):
    names = [f"company{one:03}.v1.Things" for one in range(number)]
    queues = [NOTHING | {"queue": name, "service": name} for name in names]
    queues[-1] |= {"dead": 201, "heldBytes": 129_500}
    return {
        "/v1/services": {"services": [service(name) for name in names]},
        "/v1/queues": {"queues": queues},
    }


@pytest.fixture(scope="module")
def gateway():
    class Listings(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(listings(300)[self.path]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listings) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def lines(*arguments):
    """What stands on a terminal of 80 columns at a verb's end."""
    with on_terminal(*arguments, columns=80) as terminal:
        assert terminal.end() == 0
        return [line.rstrip() for line in terminal.text.splitlines()]


def test_of_many_services_each_has_a_line(gateway):
    """Which are up would be lost among three thousand methods."""
    all_of_them = lines("services", "--url", gateway)
    named = lines("services", "company007", "--url", gateway)
    piped = poste("services", "--url", gateway).stdout

    assert len(all_of_them) < 305
    assert max(map(len, all_of_them)) <= 80
    assert all_of_them[-1] == "300 services: 300 away; `poste services NAME` shows methods and routes"
    assert [line for line in named if not line.startswith(" ")] == ["SERVICE", "company007.v1.Things"]
    assert any("POST /company007.v1.Things/M9" in line for line in named)
    assert len(piped.splitlines()) == 3001


def test_of_many_queues_the_empty_ones_are_left_out(gateway):
    """The one with dead letters would have left the screen long ago."""
    found = lines("queues", "--url", gateway)
    piped = poste("queues", "--url", gateway).stdout

    assert [line for line in found if "company" in line] == ["company299.v1.Things"]
    assert found[-1] == "and 299 queues with nothing in; a pipe and --json get these too"
    assert len(piped.splitlines()) == 301
