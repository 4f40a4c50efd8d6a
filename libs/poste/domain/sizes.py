"""How large what travels may be, in bytes. Every process goes by these, so what one accepts fits all that comes after.

A payload is one serialized request or response. It travels wrapped: in a frame of the link, as a task that is to be
kept, as a reported result, as the task that a client reads. A message that is larger than its receiver takes is
refused as a whole, on a stream with all the stream: so nothing is put into a message before it is known to fit.
"""

from __future__ import annotations

from typing import Final

#: A gRPC message that is larger is refused on both sides.
MAX_MESSAGE: Final = 16 * 1024 * 1024
#: What a message may have beside its one payload: names, keys, an error's text, a frame's cancellations.
MAX_WRAPPING: Final = 64 * 1024
#: An error that is larger, its text and its details together, goes on without the details, and its text cut to so many
#: characters.
MAX_STATUS: Final = 32 * 1024
MAX_STATUS_TEXT: Final = 4096
#: The most that is kept of an error: what its client gets, and the details for its service's operators.
MAX_KEPT_STATUS: Final = 2 * MAX_STATUS
#: A gRPC call's metadata may have so much: an error's text is spelt with up to three bytes for each, its details with
#: four for each three.
MAX_METADATA: Final = 4 * MAX_STATUS
#: That of a server which is not ours: twice what gRPC's own clients take. It comes with the call's end, unasked, and a
#: thousand calls may end at one moment.
MAX_FOREIGN_METADATA: Final = 32 * 1024
#: A payload that is larger is refused before it is sent anywhere: a request by the gateway, a response by the service
#: that made it, which is final on both roads, for it would be as large the next time.
MAX_PAYLOAD: Final = MAX_MESSAGE - MAX_WRAPPING
#: An answer's JSON may have so much: default values are written too, so of few bytes there may become many.
MAX_JSON: Final = 32 * 1024 * 1024
#: A message of a stream may have so much where a gateway does not say otherwise: each stream may have one on its way.
STREAM_MESSAGE: Final = 256 * 1024
#: A service's descriptors, with all that they import, may have so much.
MAX_DESCRIPTORS: Final = 1024 * 1024
#: A message is not made larger than this by one more task, result or entry: a single one may be larger. Well below the
#: limit, and little enough that a message is through in a moment.
BATCH: Final = 4 * 1024 * 1024
#: The same of the link's frames, which are to be through at once: live calls wait behind each.
FRAME: Final = 256 * 1024
#: A payload that is larger does not travel in one message with those that are not: they would wait for it.
LARGE: Final = 64 * 1024
