"""`poste certificates`: a small CA of a deployment's own, and a certificate for each of its parts, by OpenSSL."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from poste.domain.errors import StartError
from poste.rpc import peer_names
from poste.runtime import x509
from poste_cli import processes

#: How long the CA is good, and Redis' certificate, in days.
_CA_DAYS: Final = 3650
_DAY_SECONDS: Final = 24 * 60 * 60
_REDIS: Final = "redis"
_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_CONFIGURATION: Final = """\
[req]
prompt = no
distinguished_name = name
[name]
O = Poste
CN = {name}
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[part]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.argument("serving", nargs=-1, metavar=processes.METAVAR)
@click.option(
    "--days", type=click.IntRange(min=1), default=365, show_default=True, help="How long new certificates are good."
)
@click.option("--renew", is_flag=True, help="Make all certificates anew, not only those that are half over.")
@click.option(
    "--redis",
    "redis_hosts",
    multiple=True,
    metavar="HOST",
    help="One for Redis too, redis.crt: HOST is what POSTE_REDIS_URL calls it. As often as it has names or addresses.",
)
def certificates(folder: Path, serving: tuple[str, ...], days: int, renew: bool, redis_hosts: tuple[str, ...]) -> None:
    """Make the certificates by which the parts know each other, in DIR: NAME.crt and NAME.key.

    They are for a gateway, a mom and a courier, and for each NAME, a process that serves SERVICEs. The CA is ca.crt and
    ca.key there; it is made if it is not, and a given one is used. What is good for more than half of its days, and for
    the same services, stays. For a part: POSTE_MTLS_CA_FILE=DIR/ca.crt, POSTE_MTLS_CERTIFICATE_FILE=DIR/NAME.crt and
    POSTE_MTLS_KEY_FILE=DIR/NAME.key. A running part takes new files within seconds. Redis takes them by a
    restart alone: its certificate is good as long as a CA that is made here.

    Exit code: 0, 2 wrong usage, or they can't be made.
    """
    named = {"gateway": [peer_names.GATEWAY], "mom": [peer_names.MOM], "courier": [peer_names.COURIER]}
    named |= {name: [*map(peer_names.of_service, served)] for name, served in processes.read(serving).items()}
    wanted = {name: (names, days) for name, names in named.items()}
    if redis_hosts:
        if _REDIS in named:
            raise click.UsageError(f"there is a process called {_REDIS}, and {_REDIS}.crt is to be Redis' own")
        wanted[_REDIS] = ([*redis_hosts], _CA_DAYS)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "ca.crt").exists():
        _make_ca(folder)
    for name, made in wanted.items():
        if renew or not _is_good(folder / f"{name}.crt", *made):
            _make(folder, name, *made)
            click.echo(f"{folder / name}.crt")


def _is_good(path: Path, names: Sequence[str], days: int) -> bool:
    if not path.exists():
        return False
    content = path.read_bytes()
    expiry = x509.first_expiry(content) or 0
    return x509.names(content) == {name.lower() for name in names} and expiry > time.time() + days * _DAY_SECONDS / 2


def _make_ca(folder: Path) -> None:
    made = ("-extensions", "ca", "-days", str(_CA_DAYS), "-keyout", "ca.key", "-out", "ca.crt")
    with _configured(folder, "Poste CA", ["none"]) as configuration:
        _openssl(folder, "req", "-x509", *_KEY, *made, "-config", configuration)


def _make(folder: Path, name: str, names: Sequence[str], days: int) -> None:
    # Written aside: the part that has the old ones may read at any time.
    key, request, certificate = (f".{name}.{kind}" for kind in ("key", "csr", "crt"))
    ca = ("-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", f"0x{secrets.token_hex(16)}")
    with _configured(folder, name, names) as configuration:
        _openssl(folder, "req", "-new", *_KEY, "-keyout", key, "-out", request, "-config", configuration)
        signed = ("-extfile", configuration, "-extensions", "part", "-days", str(days), "-out", certificate)
        _openssl(folder, "x509", "-req", "-in", request, *ca, *signed)
    (folder / request).unlink()
    (folder / key).replace(folder / f"{name}.key")
    (folder / certificate).replace(folder / f"{name}.crt")


@contextlib.contextmanager
def _configured(folder: Path, name: str, names: Sequence[str]) -> Iterator[str]:
    """Have a file in the folder say what is made, while the body makes it."""
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".cnf") as file:
        file.write(_CONFIGURATION.format(name=name, names=", ".join(map(_alternative, names))))
        file.flush()
        yield file.name


def _alternative(name: str) -> str:
    """Return how OpenSSL is told a name that a certificate is for, or an address."""
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def _openssl(folder: Path, *arguments: str) -> None:
    try:
        # What it makes is for its owner's eyes only.
        done = subprocess.run(  # noqa: S603 - no shell, and words of ours
            ["openssl", *arguments],  # noqa: S607 - wherever it is on this machine
            cwd=folder,
            umask=0o077,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise StartError(
            "certificates are made by OpenSSL's command, and there is no openssl on this machine"
        ) from None
    if done.returncode:
        raise StartError(f"openssl {arguments[0]} failed in {folder}: {' '.join(done.stderr.split())}")
