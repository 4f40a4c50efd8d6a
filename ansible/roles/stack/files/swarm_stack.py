"""What Docker's own command does not say of a stack: what changed, whether it has converged, and how to take it back.

    swarm_stack.py specs STACK              the services' specs, hashed, as JSON
    swarm_stack.py wait STACK SECONDS       until all is up and updated; exit 1 if it was taken back, or in time was not
    swarm_stack.py rollback STACK JSON      takes back each service whose spec is not the one in JSON (from `specs`)

Runs on a manager; the standard library and the docker command only.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from typing import Any

#: The states of an update that are its end.
_DONE = ("", "completed")
#: All is well only once it was well for this long, in seconds: a part that dies at its start looks well for a moment.
_STEADY_SECONDS = 6.0


def docker(*arguments: str) -> str:
    """Run one of Docker's commands."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def services(stack: str) -> list[dict[str, Any]]:
    """Return the stack's services, as Docker knows them."""
    names = docker("service", "ls", "--quiet", "--filter", f"label=com.docker.stack.namespace={stack}").split()
    return json.loads(docker("service", "inspect", *names)) if names else []


def specs(stack: str) -> dict[str, str]:
    """Return a hash of each service's spec."""
    return {
        service["Spec"]["Name"]: hashlib.sha256(json.dumps(service["Spec"], sort_keys=True).encode()).hexdigest()[:16]
        for service in services(stack)
    }


def trouble(service: dict[str, Any]) -> tuple[str | None, bool]:
    """Return why a service is not up yet, and whether it never will be."""
    name = service["Spec"]["Name"]
    update = service.get("UpdateStatus") or {}
    state = update.get("State", "")
    if state.startswith("rollback") or state == "paused":
        return f"{name}: {state}: {update.get('Message', '')}", True
    if state not in _DONE:
        return f"{name}: {state}", False
    wanted = service["Spec"]["Mode"].get("Replicated", {}).get("Replicas", 0)
    rows = docker("service", "ps", "--no-trunc", "--filter", "desired-state=running", "--format",
                  "{{.CurrentState}}|{{.Error}}", name).splitlines()  # fmt: skip
    running = sum(row.startswith("Running") for row in rows)
    if running == wanted:
        return None, False
    errors = "; ".join(sorted({row.partition("|")[2] for row in rows if row.partition("|")[2]}))
    return f"{name}: {running} of {wanted} {errors}".rstrip(), False


def wait(stack: str, seconds: float) -> int:
    """Wait until every service is up and steady."""
    end, well_since = time.monotonic() + seconds, 0.0
    while True:
        found = [trouble(service) for service in services(stack)]
        left = [why for why, _ in found if why]
        if any(hopeless for _, hopeless in found):
            print("\n".join(left), file=sys.stderr)
            return 1
        now = time.monotonic()
        if left:
            well_since = 0.0
        elif not well_since:
            well_since = now
        elif now - well_since > _STEADY_SECONDS:
            return 0
        if now > end:
            print("\n".join(left), file=sys.stderr)
            return 1
        time.sleep(1)


def rollback(stack: str, before: dict[str, str]) -> int:
    """Take back every service that this roll-out changed, and that has something to go back to."""
    now = specs(stack)
    for service in services(stack):
        name = service["Spec"]["Name"]
        state = (service.get("UpdateStatus") or {}).get("State", "")
        if name in before and before[name] != now[name] and not state.startswith("rollback"):
            print(f"{name}: taken back")
            docker("service", "rollback", "--detach", name)
    return 0


def main() -> int:
    """Do what was asked for."""
    verb, stack, *rest = sys.argv[1:]
    if verb == "specs":
        print(json.dumps(specs(stack)))
        return 0
    if verb == "wait":
        return wait(stack, float(rest[0]))
    return rollback(stack, json.loads(rest[0]))


if __name__ == "__main__":
    sys.exit(main())
