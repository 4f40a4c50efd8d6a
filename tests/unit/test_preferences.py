"""What a request's headers ask for."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from poste.domain.policy import MethodPolicy
from poste_gateway.http import preferences
from poste_gateway.http.callback_urls import CallbackUrls
from poste_gateway.http.problems import Problem

#: A method without policies of its own.
ANY = MethodPolicy()
URLS = CallbackUrls(["https://hooks.example", "https://*.inner.example:8443"])


def read(*prefer: str, policy: MethodPolicy = ANY, **headers: str) -> preferences.Wishes:
    pairs = [("Prefer", line) for line in prefer]
    pairs += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return preferences.read(CIMultiDictProxy(CIMultiDict(pairs)), policy, max_wait_seconds=60, callback_urls=URLS)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), (False, None, False)),
        (("respond-async",), (True, None, False)),
        (("Respond-Async ; x=1",), (True, None, False)),
        (("wait=10",), (False, 10, False)),
        (("wait = 10",), (False, 10, False)),
        (('wait="10"',), (False, 10, False)),
        (("WAIT=0",), (False, 0, False)),
        (("wait=999999999",), (False, 60, False)),
        (("wait=" + "9" * 990,), (False, 60, False)),
        (("wait=5, wait=7",), (False, 5, False)),
        (("wait=5", "wait=x"), (False, 5, False)),
        (("no-queue",), (False, None, True)),
        (("respond-async, wait=10", "no-queue"), (True, 10, True)),
        (("respond-async,wait=10 ; a=b,",), (True, 10, False)),
        ((", ,wait=3",), (False, 3, False)),
        (('return=minimal, foo="a, wait=9", wait=2',), (False, 2, False)),
        (('x="\\", wait=9", wait=2',), (False, 2, False)),
        (("handling=lenient",), (False, None, False)),
        (("???, wait=2",), (False, 2, False)),
        (("waiter=x",), (False, None, False)),
        (("",), (False, None, False)),
    ],
)
def test_preferences_are_read_as_rfc_7240_has_them(lines, expected):
    """Else clients that keep to the standard are not understood, or others refused for what is not ours."""
    found = read(*lines)

    assert (found.respond_async, found.wait_seconds, found.no_queue) == expected


@pytest.mark.parametrize(
    "line", ["wait", "wait=", "wait=x", "wait=-1", "wait=1.5", 'wait="1', "wait=1 2", "a, wait=1=2", "wait=\u0661"]
)
def test_a_malformed_wait_is_ignored(line):
    """Else clients of the standard would be refused for a wish; what was heeded is said by Preference-Applied."""
    assert read(line).wait_seconds is None


def test_every_bad_header_is_named():
    """Else a client finds its mistakes one at a time."""
    with pytest.raises(Problem) as caught:
        read("x" * 1001, Poste_Task_TTL="0", Poste_Result_TTL="1e3")

    names = {error["field"] for error in caught.value.extra["errors"]}
    assert names == {"Prefer", "Poste-Task-TTL", "Poste-Result-TTL"}


def test_a_ttl_that_is_there_twice_is_refused():
    """Else one of the two is taken, and the client does not learn which."""
    twice = CIMultiDict([("Poste-Task-TTL", "5"), ("Poste-Task-TTL", "6")])
    with pytest.raises(Problem):
        preferences.read(CIMultiDictProxy(twice), ANY, max_wait_seconds=60, callback_urls=URLS)


@settings(deadline=None, database=None)
@given(st.text(alphabet=' ,;="\\waitx1-', max_size=40))
def test_no_header_breaks_the_reader(line):
    """Else a strange header is a 500."""
    with contextlib.suppress(Problem):
        read(line)


@pytest.mark.parametrize("unit", ["a", "a=", 'a="', "a;", ' "', "a,", "\\", "a=b;"])
def test_no_header_is_slow(unit):
    """Else one header of a few kilobytes stops the gateway for seconds."""
    begin = time.monotonic()
    read(unit * (990 // len(unit)) + '"x')

    assert time.monotonic() - begin < 1


def test_a_long_header_is_refused_by_its_name():
    """Two thousand preferences take the loop milliseconds, of each of a client's thousand connections."""
    assert read("wait=5" + "," * 900).wait_seconds == 5
    with pytest.raises(Problem) as caught:
        read(",".join(["wait"] * 2000))

    assert caught.value.extra["errors"] == [{"field": "Prefer", "reason": "must have 1000 characters at most"}]
