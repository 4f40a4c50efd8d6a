"""The audit log: what operators did, and who it was. A real gateway, and its file."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support import shop
from support.cli import environment, poste
from support.gateway import running_gateway, staged
from support.keyring import Keyring
from support.operating import OPERATOR

from poste.domain.errors import StartError
from poste_gateway.access import audit
from poste_gateway.access.audit import AuditLog

QUEUE = f"/v1/queues/{shop.NAME}"


async def test_what_operators_do_is_on_disk_and_says_who_it_was(tmp_path: Path) -> None:
    """Who paused a queue, or purged what died, could not be found out; or a client's reading hide it."""
    ring, file = Keyring(tmp_path / "client.keys"), tmp_path / "audit.log"
    ann, acme = ring.add("ann", "catalogue", "purge"), ring.add("acme")
    async with staged(tmp_path, client_keys_file=ring.path, headers=OPERATOR, audit_file=file) as stage:
        paused = await stage.gateway.post(f"{QUEUE}/pause", **ann)
        missed = await stage.gateway.post("/v1/tasks/never/purge?x=1", X_Request_Id="mine", **ann)
        refused = await stage.gateway.post(f"{QUEUE}/pause", **acme)
        read = await stage.gateway.get("/v1/queues", **acme)
        entries = [*audit.entries(file)]
    shown = poste("audit", "--limit", "1", env=environment(POSTE_AUDIT_FILE=str(file)))

    assert [reply.status for reply in (paused, missed, refused, read)] == [200, 404, 403, 200]
    assert [(one["who"], one["from"], one["what"], one["outcome"]) for one in entries] == [
        ("ann", "127.0.0.1", f"POST {QUEUE}/pause", "OK"),
        ("ann", "127.0.0.1", "POST /v1/tasks/never/purge?x=1", "no-such-task"),
    ]
    assert entries[1]["request_id"] == "mine"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert shown.stdout.endswith("  ann  127.0.0.1  POST /v1/tasks/never/purge?x=1  no-such-task\n")


async def test_a_full_file_is_set_aside_and_the_oldest_go(tmp_path: Path) -> None:
    """It would fill the disk, or what was done be gone with the file."""
    file = tmp_path / "audit.log"
    log = AuditLog(file, most_bytes=1, most_files=2)
    for number in range(4):
        await log.write(who=str(number))
    file.write_text("no entry\n")
    await log.write(who="4")

    assert len(audit.set_aside(file)) == 2
    file.touch()
    assert [one["who"] for one in audit.entries(file)] == ["3", "4"]


async def test_a_file_that_can_not_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    """That nothing is written down would be found out when it is needed."""
    with pytest.raises(StartError, match="POSTE_AUDIT_FILE"):
        async with running_gateway(tmp_path, 1, wait=False, audit_file=tmp_path):
            pass


async def test_an_entry_is_one_line_whatever_a_path_has_in_it(tmp_path: Path) -> None:
    """Who may operate could write entries of others' doing."""
    file = tmp_path / "audit.log"
    await AuditLog(file).write(who="ann", what="POST /x\n{}")

    (line,) = file.read_text().splitlines()
    assert json.loads(line)["what"] == "POST /x\n{}"
