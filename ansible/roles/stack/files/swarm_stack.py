"""What Docker's own command does not say of a stack: what changed, whether it has converged, and how to take it back.

    swarm_stack.py look STACK               how the services are, as JSON: BEFORE, for the others
    swarm_stack.py wait STACK SECONDS BEFORE      until all is up and updated; exit 1 if it was taken back, or is late
    swarm_stack.py rollback STACK SECONDS BEFORE  takes back each service that has changed since, takes away new ones,
                                                  and waits for the end of it

Runs on a manager; the standard library and the docker command only.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from typing import Any

#: The states of an update that it stays in.
_DONE = ("", "completed")
_TAKEN_BACK = ("rollback_completed", "rollback_paused", "paused")
#: All is well only once it was well for this long, in seconds: a part that dies at its start looks well for a moment.
_STEADY_SECONDS = 6.0


def docker(*arguments: str) -> str:
    """Run one of Docker's commands."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def services(stack: str) -> list[dict[str, Any]]:
    """Return the stack's services, as Docker knows them."""
    names = docker("service", "ls", "--quiet", "--filter", f"label=com.docker.stack.namespace={stack}").split()
    return json.loads(docker("service", "inspect", *names)) if names else []


def look(stack: str) -> dict[str, dict[str, Any]]:
    """Return a hash of each service's spec, and how its last update went."""
    return {
        service["Spec"]["Name"]: {
            "spec": hashlib.sha256(json.dumps(service["Spec"], sort_keys=True).encode()).hexdigest()[:16],
            "update": service.get("UpdateStatus") or {},
        }
        for service in services(stack)
    }


def short(stack: str) -> dict[str, str]:
    """Return how many run of how many, for each service of which some are missing."""
    found = docker("stack", "services", "--format", "{{.Name}} {{.Replicas}}", stack).splitlines()
    counts = {name: count.split()[0] for name, _, count in (line.partition(" ") for line in found)}
    return {name: count for name, count in counts.items() if len(set(count.split("/"))) > 1}


def errors(name: str) -> str:
    """Return what kept a service's tasks from running."""
    rows = docker("service", "ps", "--no-trunc", "--format", "{{.Error}}", name).splitlines()
    return "; ".join(sorted({row for row in rows if row}))


def wait(stack: str, seconds: float, before: dict[str, dict[str, Any]]) -> int:
    """Wait until every service is up and steady."""
    end, well_since = time.monotonic() + seconds, 0.0
    while True:
        # How an update went that was over before is no news.
        states = {
            name: now["update"].get("State", "")
            for name, now in look(stack).items()
            if now["update"] != before.get(name, {}).get("update", {})
        }
        back = [name for name, state in states.items() if state.startswith("rollback") or state in _TAKEN_BACK]
        missing = short(stack)
        left = [name for name, state in states.items() if state not in _DONE] + list(missing)
        now = time.monotonic()
        if back or (left and now > end):
            for name in sorted({*back, *left}):
                print(name, states.get(name, ""), missing.get(name, ""), errors(name), file=sys.stderr)
            return 1
        if left:
            well_since = 0.0
        elif not well_since:
            well_since = now
        elif now - well_since > _STEADY_SECONDS:
            return 0
        time.sleep(1)


def rollback(stack: str, seconds: float, before: dict[str, dict[str, Any]]) -> int:
    """Take back every service that this roll-out changed, and take away those that it brought."""
    for name, now in look(stack).items():
        under_way = now["update"].get("State", "").startswith("rollback")
        if name not in before:
            print(f"{name}: taken away")
            docker("service", "rm", name)
        elif before[name]["spec"] != now["spec"] and not under_way:
            print(f"{name}: taken back")
            docker("service", "rollback", "--detach", name)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all(now["update"].get("State", "") in (*_DONE, *_TAKEN_BACK) for now in look(stack).values()):
            return 0
        time.sleep(1)
    return 1


def main() -> int:
    """Do what was asked for."""
    verb, stack, *rest = sys.argv[1:]
    if verb == "look":
        print(json.dumps(look(stack)))
        return 0
    return {"wait": wait, "rollback": rollback}[verb](stack, float(rest[0]), json.loads(rest[1]))


if __name__ == "__main__":
    sys.exit(main())
