"""etcd, a public gRPC server: Debian's program, and its API's protos as a public client of it has them.

The program is Debian's package `etcd-server`. The protos are those of the npm package `etcd3` (tests/foreign, MIT, made
from etcd's own), with the routes that etcd's authors gave their methods.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import google.api

from support import ports
from support.deployment import Part

KV = "etcdserverpb.KV"
PROGRAM = shutil.which("etcd") or ""
_PROTOS = Path(__file__).parents[1] / "foreign/node_modules/etcd3/proto"
#: Why it can't be run here; empty if it can.
MISSING = " and ".join(
    [
        *([] if PROGRAM else ["apt-get install etcd-server"]),
        *([] if _PROTOS.exists() else ["npm ci --ignore-scripts in tests/foreign"]),
    ]
)


def descriptors(folder: Path) -> Path:
    """Make the descriptor set of etcd's API, as an operator who registers it does; returns where it is."""
    protos = folder / "protos"
    shutil.copytree(_PROTOS, protos)
    file = protos / "rpc.proto"
    # Written for a reader of protos that is not as strict as protoc.
    package = "package etcdserverpb;\n"
    text = file.read_text().replace('import "./', 'import "')
    assert package in text
    file.write_text(text.replace(package, f'{package}import "google/api/annotations.proto";\n', 1))
    made = folder / "etcd.binpb"
    common = Path(next(iter(google.api.__path__))).parents[1]
    arguments = [f"-I{protos}", f"-I{common}", "--include_imports", f"--descriptor_set_out={made}", "rpc.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True, timeout=60)
    return made


def part(folder: Path) -> Part:
    """Make one that keeps its data in the folder, through all its lives; it is not started yet."""
    port, peer = ports.free(2)
    urls = [f"http://127.0.0.1:{one}" for one in (port, peer)]
    command = [PROGRAM, "--name=one", f"--data-dir={folder / 'etcd'}", f"--initial-cluster=one={urls[1]}"]
    command += [f"--{what}-client-urls={urls[0]}" for what in ("listen", "advertise")]
    command += [f"--{what}-peer-urls={urls[1]}" for what in ("listen", "initial-advertise")]
    one = Part("etcd", command, folder)
    one.listen_at(port)
    return one
