"""Runs the project's own playbooks on the lab's hosts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.hosts import SSH_OPTIONS, Host

ROOT = Path(__file__).parents[2]
#: Where the lab's swarm has its registry: on the manager's own port, for there is no balancer in this kernel.
REGISTRY_PORT = 5000


@dataclass(frozen=True)
class Run:
    """One run of a playbook.

    Attributes:
        failed: Some host failed.
        changed: How many changes all hosts report.
        seconds: How long it took.
        output: What it said.
    """

    failed: bool
    changed: int
    seconds: float
    output: str


@dataclass
class Site:
    """The hosts as an inventory, and the variables of the roll-out."""

    folder: Path
    key: Path
    managers: dict[Host, list[str]]
    workers: dict[Host, list[str]]
    clients: list[Host]
    variables: dict[str, Any]

    def write(self) -> Path:
        """Write the inventory."""

        def hosts(some: Mapping[Host, list[str]]) -> dict[str, Any]:
            return {
                "hosts": {
                    host.name: {"ansible_host": host.address, "poste_parts": parts} for host, parts in some.items()
                }
            }

        manager = next(iter(self.managers)).address
        everything = {
            "ansible_user": "admin",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": " ".join(SSH_OPTIONS),
            # What this kernel lacks: IPVS, which the ingress balancer needs, and ESP.
            "poste_port_mode": "host",
            "poste_overlay_encrypted": False,
            "image_registry": f"{manager}:{REGISTRY_PORT}",
            "image_registry_port_mode": "host",
            "image_build_network": "host",
            # As the example has it.
            "firewall_enabled": True,
            # Ten replicas, one after the other, take long enough.
            "stack_update_monitor": "5s",
            **self.variables,
        }
        path = self.folder / "inventory.json"
        path.write_text(
            json.dumps(
                {
                    "all": {
                        "vars": everything,
                        "children": {
                            "managers": hosts(self.managers),
                            "workers": hosts(self.workers),
                            "clients": hosts({client: [] for client in self.clients}),
                        },
                    }
                }
            )
        )
        return path

    def play(self, playbook: str = "site.yml", *options: str, **variables: Any) -> Run:
        """Run a playbook as its README says."""
        begin = time.monotonic()
        done = subprocess.run(
            # Another machine's work, which must not slow down the hosts that this one plays.
            ["nice", "-n", "10", Path(sys.executable).with_name("ansible-playbook"), "-i", self.write(), playbook,
             *(("-e", json.dumps(variables)) if variables else ()), *options],
            cwd=ROOT / "ansible", capture_output=True, text=True, check=False, timeout=1200,
            # Away from the terminal: Ansible and ssh reach for it, and would be stopped in the background.
            stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks"},
        )  # fmt: skip
        output = done.stdout + done.stderr
        with (self.folder / "ansible.log").open("a") as log:
            log.write(output)
        changed = sum(int(number) for number in re.findall(r"changed=(\d+)", output))
        return Run(done.returncode != 0, changed, time.monotonic() - begin, output)
