"""Types that any service may answer with, whatever its own files import: google/protobuf, google/rpc, HttpBody.

An Any may hold them, and the details of a status do. They are added to a service's descriptors where one is missing,
so that a service in any language has them.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from google.api import httpbody_pb2
from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.rpc import code_pb2, error_details_pb2, http_pb2, status_pb2
from google.rpc.context import attribute_context_pb2

#: What imports another comes after it.
_FILES: Final = tuple(
    module.DESCRIPTOR
    for module in (
        any_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        source_context_pb2,
        struct_pb2,
        timestamp_pb2,
        type_pb2,
        api_pb2,
        wrappers_pb2,
        code_pb2,
        error_details_pb2,
        http_pb2,
        status_pb2,
        attribute_context_pb2,
        httpbody_pb2,
    )
)


def add_to(pool: Any) -> None:
    """Add them to a pool, but for those that it has, and those in whose place it has something else."""
    for file in _FILES:
        try:
            pool.FindFileByName(file.name)
        except KeyError:
            _add(pool, file.serialized_pb)


@functools.cache
def pool() -> descriptor_pool.DescriptorPool:
    """Return a pool of them alone."""
    alone = descriptor_pool.DescriptorPool()
    add_to(alone)
    return alone


def _add(pool: Any, file: bytes) -> None:
    try:
        pool.AddSerializedFile(file)
    except TypeError:
        # A name in it is taken: the service's own files come first.
        return
