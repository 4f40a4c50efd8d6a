"""What the value of a setting may be: each kind once, with what would do instead in the text of its refusal."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from poste.domain.input_rules import is_address
from poste.domain.policy import MAX_TTL_SECONDS
from poste.runtime.addresses import MAX_SOCKET_PATH, UNIX, is_loopback, names_a_socket

#: The longest that anything may take, in seconds, a week: clocks and timers count to some end, and a mistaken unit
#: shows.
MAX_SECONDS: Final = 7 * 24 * 3600.0
#: The last port that there is (RFC 6335).
MAX_PORT: Final = 65535

#: How an environment of Kubernetes, or Docker's links, spells where a service is.
SERVICE_LINK: Final = re.compile(r"(?:tcp|udp|sctp)://")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
#: What a browser sends for a scheme with a port that is the scheme's own: no port.
_OWN_PORTS: Final = {"http": "80", "https": "443"}
_ORIGIN: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::(?P<port>[0-9]{1,5}))?"
)
_CALLBACK_ORIGIN: Final = re.compile(
    r"https?://(?:\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
_NAMED_HOST: Final = re.compile(r"\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|[0-9a-f:.]+", re.ASCII)
#: gRPC's schemes for what is no host and port: they are gRPC's to judge.
_OTHER_TARGETS: Final = (UNIX, "unix-abstract:", "vsock:", "xds:")


def _port(value: Any) -> Any:
    if isinstance(value, str) and SERVICE_LINK.match(value):
        raise ValueError(
            "is what Kubernetes says of a service called poste: give that another name, or set enableServiceLinks: "
            "false"
        )
    return value


def _host(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if _HOST_NAME.fullmatch(value) is None:
            raise ValueError("must be an address or a name alone, such as 0.0.0.0") from None
    return value


def _socket(path: Path) -> Path:
    if not names_a_socket(path):
        raise ValueError(
            f"a socket's path is absolute, {MAX_SOCKET_PATH} bytes long at most, of letters, digits and ./+=@-_"
        )
    return path


def _target(value: str) -> str:
    """Refuse what gRPC would take for something else: of `mom` it calls port 443, of `http://mom` a host `http`."""
    if value.startswith(_OTHER_TARGETS):
        return value
    scheme, colon, places = value.partition(":")
    several = bool(colon) and scheme in ("ipv4", "ipv6")
    plain = re.sub(r"^dns:(//[^/]*/)?", "", value)
    for place in places.split(",") if several else [plain]:
        if not is_address(place):
            bare = plain.rpartition("://")[2].strip("/").partition("/")[0]
            raise ValueError(f"must name host and port, such as {_likely(bare)}")
    return value


def _likely(place: str) -> str:
    """Return the target that was probably meant by this."""
    likely = place if is_address(place) else f"{place}:50051"
    return f"dns:///{likely if is_address(likely) else 'mom:50051'}"


def _replica_address(value: str) -> str:
    if not is_address(value) and not (value.startswith(UNIX) and names_a_socket(Path(value.removeprefix(UNIX)))):
        raise ValueError("must be host:port, such as 10.0.0.7:50052, or unix:/path")
    return value


def _network(value: Any) -> IPv4Network | IPv6Network:
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        try:
            likely = str(ipaddress.ip_network(value, strict=False))
        except ValueError:
            likely = "10.0.0.0/24"
        raise ValueError(f"{error}: a network is spelt like {likely}") from None


def _origin(value: str) -> str:
    """Refuse what no browser ever sends: it is compared with what one does, letter by letter (Fetch standard)."""
    if value in ("*", "null"):
        return value
    found = _ORIGIN.match(value)
    if found is None:
        raise ValueError("can never match: must be an origin, such as https://app.example")
    scheme, host = (found["scheme"] or "https").lower(), found["host"].lower()
    port = found["port"]
    spelt = f"{scheme}://{host}" + (f":{int(port)}" if port and port != _OWN_PORTS.get(scheme) else "")
    if value != spelt or (port and not 1 <= int(port) <= MAX_PORT):
        raise ValueError(f"can never match: browsers send scheme, host and port alone, such as {spelt}")
    return value


def _callback_origin(value: str) -> str:
    """Refuse what is no origin of URLs that may be called: its host may be `*`, or begin with `*.`."""
    found = _CALLBACK_ORIGIN.fullmatch(value)
    if found is None or (found["port"] and not 1 <= int(found["port"]) <= MAX_PORT):
        raise ValueError("must be an origin, such as https://hooks.example or https://*.example")
    return value


def _jwks_url(value: str) -> str:
    """Refuse what could be read and changed on its way: who changes the keys makes any token good."""
    parts = urlsplit(value)
    if parts.scheme == "https" and parts.hostname:
        return value
    if parts.scheme == "http" and parts.hostname and is_loopback(parts.hostname):
        return value
    raise ValueError("must be an https URL, or http on loopback, such as https://issuer.example/jwks.json")


def _named_host(value: str) -> str:
    """Refuse what no `Host` says: a port, a scheme, capital letters, which it is compared without."""
    if _NAMED_HOST.fullmatch(value) is None:
        raise ValueError("must be a name alone, in small letters, such as api.example or *.example")
    return value


def _some(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("must name one at least")
    return values


def split(value: object) -> object:
    """Take a list apart that is one text, with commas."""
    if isinstance(value, str):
        return tuple(one.strip() for one in value.split(",") if one.strip())
    return value


Port = Annotated[int, BeforeValidator(_port), Field(ge=0, le=MAX_PORT)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
#: What may be 0 as well, which means that there is none of it.
SomeSeconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
#: A time to live, in seconds.
Ttl = Annotated[int, Field(gt=0, le=MAX_TTL_SECONDS)]
Bytes = Annotated[int, Field(gt=0)]
#: How many of something, or bytes of it, where 0 is any number; the most is more than any queue holds.
Amount = Annotated[int, Field(ge=0, le=10**15)]
Host = Annotated[str, AfterValidator(_host)]
#: A socket in the file system.
Socket = Annotated[Path, AfterValidator(_socket)]
#: A gRPC target.
Target = Annotated[str, AfterValidator(_target)]
#: Where a replica is called.
ReplicaAddress = Annotated[str, AfterValidator(_replica_address)]
Network = IPv4Network | IPv6Network
Networks = Annotated[tuple[Annotated[Network, BeforeValidator(_network)], ...], NoDecode, BeforeValidator(split)]
#: Where the keys of an issuer of tokens are fetched.
JwksUrl = Annotated[str, AfterValidator(_jwks_url)]
#: By what tokens may be signed: a key pair, of which only the issuer has the private half (RFC 7518, RFC 8037).
Algorithms = Annotated[
    tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...],
    AfterValidator(_some),
    NoDecode,
    BeforeValidator(split),
]
#: What every token's client may do.
ClientRoles = Annotated[tuple[Literal["call", "read"], ...], NoDecode, BeforeValidator(split)]
HostNames = Annotated[tuple[Annotated[str, AfterValidator(_named_host)], ...], NoDecode, BeforeValidator(split)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(split)]
#: Those of URLs that may be called.
CallbackOrigins = Annotated[
    tuple[Annotated[str, AfterValidator(_callback_origin)], ...], NoDecode, BeforeValidator(split)
]
#: What a Redis keeps: what it has answered, all but the last second, or nothing when it stops.
Keeps = Literal["always", "second", "nothing"]
