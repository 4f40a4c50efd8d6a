"""The keys that an issuer of tokens signs with: a JWK Set (RFC 7517), from a file or from the issuer's own URL.

What is fetched is kept while the issuer is away. A token whose key is not known may be signed by a new one, so the set
is fetched anew for it; but no more often than now and then, for anybody can make such tokens up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import jwt

from poste.domain.errors import StartError
from poste.runtime import logs, metrics, secret_files
from poste.runtime.backoff import Backoff

#: How large a set may be, in bytes, and how many keys of it are used.
_MOST_BYTES: Final = 256 * 1024
_MOST_KEYS: Final = 100
#: How long one fetch may take, in seconds, and how long a request waits for it.
_FETCH_SECONDS: Final = 5.0
#: How often the set is fetched, in seconds; and how long after one that was asked for no other can be.
_EVERY_SECONDS: Final = 300.0
_APART_SECONDS: Final = 10.0
#: The pauses between fetches that fail, in seconds: the first at most, the longest.
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
#: What an RSA key that does not say it may be used with.
_OF_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

_log: Final = logs.get("issuer_keys")


class Key(NamedTuple):
    """A public key, and the algorithms that it may verify by."""

    public: Any
    algorithms: tuple[str, ...]


def read(content: bytes, algorithms: Iterable[str]) -> dict[str, Key]:
    """Return the keys of a set that can verify by one of some algorithms, by their ids; others are passed over.

    Raises:
        ValueError: It is no set, or has no such key.
    """
    try:
        found = json.loads(content)["keys"]
        entries = [entry for entry in found if isinstance(entry, dict)]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError("it is no JWK Set (RFC 7517)") from None
    keys: dict[str, Key] = {}
    for entry in entries[:_MOST_KEYS]:
        if (key := _key(entry, frozenset(algorithms))) is not None:
            keys.setdefault(str(entry.get("kid", "")), key)
    if not keys:
        raise ValueError(f"it has no key that verifies {', '.join(algorithms)}")
    return keys


def _key(entry: dict[str, Any], wanted: frozenset[str]) -> Key | None:
    # What has its private half in it can be anybody's by now.
    if entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    try:
        made = jwt.PyJWK(entry)
        # RFC 7518: RSA keys have 2048 bits at least.
        weak = made.Algorithm.check_key_length(made.key)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    is_open = made.algorithm_name in _OF_RSA and "alg" not in entry
    fit = tuple(one for one in (_OF_RSA if is_open else (made.algorithm_name,)) if one in wanted)
    return None if weak or not fit else Key(made.key, fit)


class IssuerKeys(ABC):
    """The keys in use.

    Attributes:
        keys: These, by their ids; another object after each change.
        stale: The newest set could not be had.
        settled: It makes no sense to ask for a newer one now.
    """

    def __init__(self, algorithms: tuple[str, ...]) -> None:
        """Use keys that verify by these algorithms."""
        self._algorithms = algorithms
        self._content = b""
        self.keys: Mapping[str, Key] = {}
        self.stale, self.settled = False, True

    def find(self, kid: str | None) -> Key | None:
        """Return a key by the id that a token names; if it names none, the only one there is."""
        if kid is None:
            return next(iter(self.keys.values())) if len(self.keys) == 1 else None
        return self.keys.get(kid)

    @abstractmethod
    async def keep(self) -> None:
        """Have the keys be the newest. Never returns."""

    @abstractmethod
    async def renew(self) -> None:
        """Look for a newer set, unless that makes no sense now."""

    def _use(self, content: bytes) -> None:
        """Use a set.

        Raises:
            ValueError: It can't be used.
        """
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        if content != self._content:
            self.keys = read(content, self._algorithms)
            self._content = content
            _log.info("issuer's keys read", keys=sorted(self.keys))
        self._note(stale=False)

    def _note(self, *, stale: bool) -> None:
        self.stale = stale
        metrics.issuer_keys_stale.set(stale)


class FileKeys(IssuerKeys):
    """Those of a file, which is read again when it changes."""

    def __init__(self, path: Path, algorithms: tuple[str, ...]) -> None:
        """Read the file.

        Raises:
            StartError: It can't be used.
        """
        super().__init__(algorithms)
        self._path = path
        try:
            self._use(self._read())
        except OSError as error:
            raise StartError(f"POSTE_JWT_JWKS_FILE={path}: {error.strerror}") from error
        except ValueError as error:
            raise StartError(f"POSTE_JWT_JWKS_FILE={path}: {error}") from error

    async def keep(self) -> None:
        """Read the file again whenever it changes. Never returns."""
        async for _ in secret_files.changes(self._path):
            try:
                self._use(await asyncio.to_thread(self._read))
            except (OSError, ValueError) as error:
                # It may be half written: it changes once more, then.
                self._note(stale=True)
                _log.error("issuer's keys refused", file=str(self._path), error=str(error))

    async def renew(self) -> None:
        """Do nothing: whoever changes the file is waited for."""

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(_MOST_BYTES + 1)


class FetchedKeys(IssuerKeys):
    """Those that are fetched from a URL."""

    def __init__(self, url: str, algorithms: tuple[str, ...], trust: ssl.SSLContext) -> None:
        """Fetch from a URL, whose server is verified by `trust`."""
        super().__init__(algorithms)
        self._url, self._trust = url, trust
        self.settled = False
        self._wanted, self._looked = asyncio.Event(), asyncio.Event()
        self._backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)

    async def keep(self) -> None:
        """Fetch the set now, from time to time, and when it is asked for. Never returns."""
        connector = aiohttp.TCPConnector(ssl=self._trust, force_close=True)
        timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar) as session:
            while True:
                pause = await self._look(session)
                self._looked.set()
                self._looked = asyncio.Event()
                if pause:
                    self.settled = True
                    await asyncio.sleep(pause)
                    self.settled = False
                if not self.stale:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wanted.wait(), _EVERY_SECONDS)

    async def renew(self) -> None:
        """Have the set fetched, unless that was a moment ago; returns when it was, or takes too long."""
        if self.settled:
            return
        self._wanted.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), _FETCH_SECONDS)

    async def _look(self, session: aiohttp.ClientSession) -> float:
        """Fetch the set; returns for how long it is not to be asked for again, in seconds."""
        try:
            self._use(await self._fetch(session))
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            self._note(stale=True)
            _log.error("issuer's keys not fetched", url=self._url, error=str(error) or type(error).__name__)
            return self._backoff.pause_seconds()
        finally:
            asked = self._wanted.is_set()
            self._wanted.clear()
        self._backoff.reset()
        # What is fetched from time to time keeps no new key waiting.
        return _APART_SECONDS if asked else 0.0

    async def _fetch(self, session: aiohttp.ClientSession) -> bytes:
        # Where it is, the operator said: whoever answers there does not say another place.
        async with session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:  # noqa: PLR2004 - HTTP's own
                raise ValueError(f"HTTP status {response.status}")
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > _MOST_BYTES:
                    break
            return bytes(content)
