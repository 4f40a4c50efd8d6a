"""Collects the descriptors that a service is registered with: its file, its imports, and what its program has loaded.

A handler may put any message that its program knows into a google.protobuf.Any, or into a status's details; a gateway
that writes it as JSON must know the type. What is loaded is found by the generated modules: a pool can't be asked.
"""

from __future__ import annotations

import sys
from typing import Final

from google.protobuf.descriptor import FileDescriptor

from poste.rpc.descriptor_sets import files_with_imports, serialized_set
from poste.runtime import logs

#: How many bytes a service is registered with at most beyond what it needs: the catalogue holds that of every service,
#: in memory and in messages. A program that has loaded the types of a whole cloud has more.
MAX_MORE_BYTES: Final = 256 * 1024
#: Files of Poste and of the libraries that it uses itself. Of Google's, the gateway has those that matter.
_NOT_THE_PROGRAMS: Final = (
    "poste/",
    "grpc_",
    "google/protobuf/",
    "google/rpc/",
    "google/api/",
    "opentelemetry/",
)

_log: Final = logs.get("register")


def file_descriptor_set(file: FileDescriptor) -> bytes:
    """Return what the service of a file is registered with, as a FileDescriptorSet."""
    files = files_with_imports(file)
    room, left_out = MAX_MORE_BYTES, 0
    for other in _loaded(nearest=file.package.partition(".")[0]):
        more = {name: one for name, one in files_with_imports(other).items() if name not in files}
        size = sum(map(len, more.values()))
        if size <= room:
            files |= more
            room -= size
        else:
            left_out += 1
    if left_out:
        _log.warning("types not registered", files=left_out, file=file.name, max_bytes=MAX_MORE_BYTES)
    return serialized_set(files)


def _loaded(*, nearest: str) -> list[FileDescriptor]:
    """Return the program's files, in every replica alike: by name, those of the outermost package `nearest` first."""
    members = map(_descriptor_of, list(sys.modules.values()))
    found = {one.name: one for one in members if isinstance(one, FileDescriptor)}
    files = [one for name, one in found.items() if not name.startswith(_NOT_THE_PROGRAMS)]
    return sorted(files, key=lambda one: (one.package.partition(".")[0] != nearest, one.name))


def _descriptor_of(module: object) -> object:
    try:
        # Past what a lazy module does when it is asked for anything: it is imported then.
        return object.__getattribute__(module, "__dict__").get("DESCRIPTOR")
    except AttributeError:
        # Python puts None where an import is forbidden, and programs put what they like.
        return None
