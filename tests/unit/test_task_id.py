"""Task ids: what a status is judged by when there is no record."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poste.domain import id_keys, input_rules
from poste.domain.errors import InvalidTaskId
from poste.domain.id_keys import LATE_MS, IdKeys
from poste.domain.task_id import MAX_WITHOUT_QUEUE, TaskIds, with_queue, without_queue

IDS = TaskIds(b"k" * 32)


@given(
    queue=st.from_regex(r"[a-z][a-z0-9_.]{0,80}", fullmatch=True),
    task_ttl=st.integers(1, 30 * 86400),
    result_ttl=st.integers(1, 30 * 86400),
    now=st.floats(0, 4e9),
)
def test_an_id_says_what_it_was_made_of(queue: str, task_ttl: int, result_ttl: int, now: float) -> None:
    """410 and record-lost are distinguished by these."""
    made = IDS.mint(queue, task_ttl_seconds=task_ttl, result_ttl_seconds=result_ttl, now=now)

    assert IDS.read(made.text) == made
    assert (made.queue, made.task_ttl_seconds, made.result_ttl_seconds) == (queue, task_ttl, result_ttl)
    assert abs(made.create_ms - now * 1000) <= 1


@given(queue=st.text(st.characters(codec="utf-8"), min_size=1, max_size=80))
def test_an_id_is_spelt_without_its_queue_and_with_it(queue: str) -> None:
    """A service's log would call a task by an id that no client has, or its record grow by its queue's name."""
    made = IDS.mint(queue, task_ttl_seconds=5, result_ttl_seconds=6)
    rest = without_queue(made)

    assert len(rest) <= MAX_WITHOUT_QUEUE
    assert with_queue(queue, rest) == made.text


def test_logs_call_a_task_that_was_moved_as_its_client_does() -> None:
    """Who looks for it by the id that the client has would find nothing of what became of it in the other queue."""
    made = IDS.mint("old.Service", task_ttl_seconds=5, result_ttl_seconds=6)
    moved = f"{without_queue(made)}@{made.queue}"

    assert input_rules.is_id_rest(moved)
    assert with_queue("new.and.longer.Service", moved) == made.text


@given(now=st.floats(0, 4e9))
def test_an_id_is_made_anew_from_its_record(now: float) -> None:
    """Operators would see ids of dead tasks that are not those which clients have."""
    made = IDS.mint("q.Service", task_ttl_seconds=5, result_ttl_seconds=6, now=now)
    again = IDS.remake("q.Service", made.key, create_ms=made.create_ms, task_ttl_seconds=5, result_ttl_seconds=6)

    assert again == made


def test_an_id_in_doubt_leads_to_the_same_task() -> None:
    """A client could not find the call that was accepted after all."""
    made = IDS.mint("q.Service", task_ttl_seconds=5, result_ttl_seconds=6)
    doubted = IDS.with_acceptance_unknown(made)

    assert IDS.read(doubted.text) == doubted
    assert (doubted.key, doubted.create_ms, doubted.acceptance_unknown) == (made.key, made.create_ms, True)
    assert doubted.text != made.text


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_forged_id_was_never_issued(place: int, flip: int) -> None:
    """An id whose time or queue could be changed would make the status lie."""
    made = IDS.mint("q.Service", task_ttl_seconds=1, result_ttl_seconds=1)
    raw = bytearray(base64.urlsafe_b64decode(made.text + "=" * (-len(made.text) % 4)))
    raw[place % len(raw)] ^= flip
    with pytest.raises(InvalidTaskId):
        IDS.read(base64.urlsafe_b64encode(raw).rstrip(b"=").decode())


@given(st.text(max_size=200))
def test_any_text_is_refused_without_an_accident(text: str) -> None:
    """Ids come from clients: nothing that they send may be more than a 404."""
    with pytest.raises(InvalidTaskId):
        IDS.read(text)


@pytest.mark.parametrize("change", [lambda t: t + "=", lambda t: t + " ", lambda t: " " + t, lambda t: t + "\n"])
def test_an_id_has_one_spelling(change) -> None:
    """Two spellings of one id are two cache entries and two log lines of one task."""
    made = IDS.mint("q.Service", task_ttl_seconds=1, result_ttl_seconds=1)
    with pytest.raises(InvalidTaskId):
        IDS.read(change(made.text))


def test_the_last_character_has_one_spelling() -> None:
    """Base64's unused bits would give every id up to sixteen spellings."""
    made = next(
        one
        for one in (IDS.mint("q" * size, task_ttl_seconds=1, result_ttl_seconds=1) for size in range(1, 4))
        if len(one.text) % 4
    )
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    read = []
    for last in alphabet:
        try:
            IDS.read(made.text[:-1] + last)
        except InvalidTaskId:
            continue
        read.append(last)

    assert read == [made.text[-1]]


def test_another_key_issued_nothing_of_ours() -> None:
    """A gateway with another key must answer 404, and be recognized by its fingerprint."""
    other = TaskIds(b"o" * 32)
    with pytest.raises(InvalidTaskId):
        IDS.read(other.mint("q", task_ttl_seconds=1, result_ttl_seconds=1).text)
    assert other.fingerprint != IDS.fingerprint


def test_a_short_key_is_refused() -> None:
    """A key that can be guessed signs nothing."""
    with pytest.raises(ValueError, match="16"):
        TaskIds(b"short")


DAY_MS = 86_400_000


def rotated(*since_ms: int) -> IdKeys:
    """The keys after one rotation for each of these times."""
    keys = id_keys.read(b"k" * 32)
    for one in since_ms:
        keys = id_keys.rotated(keys, now_ms=one - 1, since_ms=one)
    return id_keys.read(id_keys.spell(keys))


def mint(ids: TaskIds, at_ms: int) -> str:
    return ids.mint("q.Service", task_ttl_seconds=1, result_ttl_seconds=1, now=at_ms / 1000).text


def test_ids_outlive_the_key_that_signed_them() -> None:
    """A rotation would make every task "never issued" that waits, or whose result is kept."""
    ids = TaskIds(b"k" * 32)
    before = mint(ids, DAY_MS)
    ids.renew(rotated(2 * DAY_MS, 3 * DAY_MS))

    assert ids.read(before).text == before
    # By its number, which is an id's first character.
    assert [mint(ids, day * DAY_MS)[0] for day in (1, 2, 3, 4)] == ["A", "B", "C", "C"]
    assert [ids.read(mint(ids, day * DAY_MS)).create_ms for day in (2, 3, 4)] == [day * DAY_MS for day in (2, 3, 4)]


def test_the_id_of_a_dead_letter_is_signed_anew_once_its_key_was_dropped() -> None:
    """Who repeats its idempotency key after three months would get a 500: its record can't be read."""
    ids = TaskIds(b"k" * 32)
    before = ids.read(mint(ids, DAY_MS))
    both = rotated(2 * DAY_MS, 3 * DAY_MS)
    ids.renew(both)
    assert ids.signed_anew(before.text) == before

    ids.renew(both._replace(keys=both.keys[1:]))
    with pytest.raises(InvalidTaskId):
        ids.read(before.text)
    anew = ids.signed_anew(before.text)
    assert anew._replace(text=before.text) == before
    assert ids.read(anew.text) == anew
    for wrong in ("", before.text[:8], "C" + before.text[1:]):
        with pytest.raises(InvalidTaskId):
            ids.signed_anew(wrong)


def test_gateways_sign_alike_before_the_new_keys_time_and_after() -> None:
    """An id of a gateway that has the new file would be a 404 at one that has the old one still."""
    old, new = TaskIds(b"k" * 32), TaskIds(id_keys.spell(rotated(2 * DAY_MS)))

    assert old.read(mint(new, 2 * DAY_MS - 1))
    with pytest.raises(InvalidTaskId):
        old.read(mint(new, 2 * DAY_MS))
    assert new.read(mint(old, 2 * DAY_MS + LATE_MS - 1))


def test_a_key_that_leaked_dates_no_id_later_than_its_time() -> None:
    """Rotating after a leak would help nothing until the old key is dropped."""
    leaked, ids = TaskIds(b"k" * 32), TaskIds(id_keys.spell(rotated(2 * DAY_MS)))
    with pytest.raises(InvalidTaskId):
        ids.read(mint(leaked, 2 * DAY_MS + LATE_MS))


def test_a_key_is_dropped_once_no_task_of_its_is_left() -> None:
    """A secret that was replaced would be good for ever; or be dropped while results are kept by it."""
    keys = rotated(2 * DAY_MS)
    over_ms = 2 * DAY_MS + 91 * DAY_MS

    assert [one.number for one in id_keys.without_old(keys, now_ms=60 * DAY_MS).keys] == [0, 1]
    kept = id_keys.without_old(keys, now_ms=over_ms)
    assert [one.number for one in kept.keys] == [1]
    # A dead task may be older, and operators are shown an id of it.
    ids = TaskIds(id_keys.spell(kept))
    assert ids.read(mint(ids, DAY_MS)).create_ms == DAY_MS
    assert [one.number for one in id_keys.rotated(keys, now_ms=over_ms, since_ms=over_ms).keys] == [1, 2]


def test_what_was_made_of_a_key_is_the_same_after_a_rotation() -> None:
    """A repeat with an idempotency key would run again, and clients' tasks be nobody's."""
    ids, after = TaskIds(b"k" * 32), TaskIds(id_keys.spell(rotated(2 * DAY_MS)))
    made = ids.mint("q.Service", client="acme", task_ttl_seconds=1, result_ttl_seconds=1)

    assert after.of_idempotency_key("s", "m", "t") == ids.of_idempotency_key("s", "m", "t")
    assert after.is_of(made, "acme")
    assert not after.is_of(made, "other")
    assert after.fingerprint == ids.fingerprint


def test_another_postes_keys_are_refused() -> None:
    """A wrong file that is put into place would make every id "never issued"."""
    with pytest.raises(ValueError, match="another Poste's"):
        TaskIds(b"k" * 32).renew(id_keys.read(b"o" * 32))


SECRET = b'"secret": "a2tra2tra2tra2tra2tra2tr", "since_ms": 0'


@pytest.mark.parametrize("content", [
    b'{"base": "a2tra2tra2tra2tra2tra2tr", "keys": []}',
    b'{"base": "c2hvcnQ=", "keys": [{"number": 0, %b}]}' % SECRET,
    b'{"base": "a2tra2tra2tra2tra2tra2tr", "keys": [{"number": 64, %b}]}' % SECRET,
    b'{"base": "a2tra2tra2tra2tra2tra2tr", "keys": [{"number": 0}]}',
    b'{"base": 1, "keys": 2}',
    b'{"base',
    b"short",
])  # fmt: skip
def test_a_file_of_keys_that_is_wrong_is_refused_without_its_secrets(content: bytes) -> None:
    """A gateway would sign with a key that can be guessed, or a log have one."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - what it says is asked below
        id_keys.read(content)
    assert "a2tr" not in str(refused.value)
