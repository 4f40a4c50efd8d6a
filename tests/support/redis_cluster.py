"""A Redis Cluster for tests: masters without replicas, on this machine, the slots dealt out evenly."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from support.ports import free_port
from support.redis_server import RedisServer

_SLOTS = 16384


class RedisCluster:
    """Masters that know each other. One that is killed takes its own slots along, and no others."""

    def __init__(self, folder: Path, masters: int = 3) -> None:
        self.folder = folder
        self.masters = [self._server(str(number)) for number in range(masters)]
        self.replicas: list[RedisServer] = []

    def _server(self, name: str) -> RedisServer:
        return RedisServer(
            self.folder / name,
            **{
                "cluster-enabled": "yes",
                "cluster-port": str(free_port()),
                # How long a server may be silent before the others say so, in ms.
                "cluster-node-timeout": "1000",
                # Slots without a master are refused, and no others.
                "cluster-require-full-coverage": "no",
                # A replica has its copy at once, not after the wait for others that might want one too.
                "repl-diskless-sync-delay": "0",
            },
        )

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{master.port}" for master in self.masters)

    def start(self) -> None:
        for master in self.masters:
            master.start()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(_open(master)) for master in self.masters]
            for number, client in enumerate(clients):
                first, after = (_SLOTS * n // len(clients) for n in (number, number + 1))
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, after - 1)
                _meet(client, self.masters[number - 1])
            _until(lambda: all(_agrees(client, len(clients)) for client in clients), "a cluster")

    def add_replica(self, master: RedisServer) -> None:
        """Give a master a replica that takes over when it is gone."""
        replica = self._server(f"replica-{len(self.replicas)}")
        self.replicas.append(replica)
        replica.start()
        with _open(replica) as client, _open(master) as of:
            _meet(client, master)
            name = of.execute_command("CLUSTER MYID")
            _until(lambda: name in str(client.execute_command("CLUSTER NODES")), "acquainted")
            client.execute_command("CLUSTER REPLICATE", name)
            _until(lambda: client.info("replication").get("master_link_status") == "up", "a replica")
            _until(lambda: of.info("replication")["connected_slaves"] == 1, "a replica")

    def owner(self, key: str) -> RedisServer:
        """The master that a key belonged to at the start."""
        with _open(self.masters[0]) as client:
            slot = int(client.execute_command("CLUSTER KEYSLOT", key))
        return self.masters[next(n for n in range(len(self.masters)) if slot < _SLOTS * (n + 1) // len(self.masters))]

    @contextlib.contextmanager
    def moving(self, key: str, target: RedisServer) -> Iterator[Callable[[], None]]:
        """Have the slot of a key be on its way to another master; what is yielded moves it, and ends that."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(_open(master)) for master in self.masters]
            slot = clients[0].execute_command("CLUSTER KEYSLOT", key)
            new = clients[self.masters.index(target)]
            ids = [client.execute_command("CLUSTER MYID") for client in clients]
            old = next(client for client in clients if client.execute_command("CLUSTER COUNTKEYSINSLOT", slot))
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[clients.index(old)])
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[clients.index(new)])

            def move() -> None:
                while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
                    old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
                for client in (new, old, *clients):
                    client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[clients.index(new)])

            yield move


def _open(server: RedisServer) -> redis.Redis:
    return redis.Redis(port=server.port, retry=None, decode_responses=True)


def _meet(client: redis.Redis, other: RedisServer) -> None:
    client.execute_command("CLUSTER MEET", "127.0.0.1", other.port, other.config["cluster-port"])


def _until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, f"the servers did not become {what}"
        time.sleep(0.01)  # a cluster says by nothing else that it is one


def _agrees(client: redis.Redis, masters: int) -> bool:
    """Whether a node sees every slot served, and every other node."""
    info = client.execute_command("CLUSTER INFO")
    return bool(
        info["cluster_state"] == "ok"
        and int(info["cluster_slots_ok"]) == _SLOTS
        and int(info["cluster_known_nodes"]) == masters
    )


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[RedisCluster]:
    """Run three masters while the body runs."""
    cluster = RedisCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        for server in (*cluster.masters, *cluster.replicas):
            if server.process is not None and server.process.poll() is None:
                server.kill()
