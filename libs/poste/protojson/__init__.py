"""ProtoJSON (https://protobuf.dev/programming-guides/json/), stricter on input than `json_format` is.

`decode` reads a request's JSON and names every field that is wrong; `loads` and `decode_value` do it in two steps.
`missing` says what one in bytes lacks. `encode` writes a response's; `outline` says what a message's JSON is made of.
"""

from poste.protojson.composing import Composer, Raw
from poste.protojson.errors import FieldError, FieldErrors, UnprintableError
from poste.protojson.missing import missing
from poste.protojson.outlines import outline
from poste.protojson.reading import decode, decode_value
from poste.protojson.text import loads
from poste.protojson.writing import any_to_value, dumps, encode, to_value

__all__ = [
    "Composer",
    "FieldError",
    "FieldErrors",
    "Raw",
    "UnprintableError",
    "any_to_value",
    "decode",
    "decode_value",
    "dumps",
    "encode",
    "loads",
    "missing",
    "outline",
    "to_value",
]
