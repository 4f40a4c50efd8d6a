"""What the load reads from a connection: a wrong reading would make a broken run seem a fast one."""

from __future__ import annotations

import pytest
from bench.answers import Answers, UnreadableError

HEAD = b"HTTP/1.1 202 Accepted\r\nServer: poste\r\nLocation: /v1/tasks/AVx0\r\nContent-Length: 12\r\n\r\n"
BODY = b'{"result":5}'


def test_an_answer_in_one_piece():
    """Without it nothing would be counted."""
    answer = Answers().feed(HEAD + BODY)

    assert answer is not None
    assert (answer.status, answer.body, answer.location) == (202, BODY, "/v1/tasks/AVx0")


@pytest.mark.parametrize("cut", [1, 8, len(HEAD) - 3, len(HEAD) - 1, len(HEAD), len(HEAD) + 5])
def test_an_answer_in_two_pieces(cut):
    """TCP cuts where it likes: a half answer must be neither lost nor taken for a whole one."""
    answers, whole = Answers(), HEAD + BODY

    assert answers.feed(whole[:cut]) is None
    assert answers.feed(whole[cut:]) == (202, HEAD[:-4], BODY)


def test_the_next_answer_begins_anew():
    """What was kept of one answer must not stand before the next."""
    answers = Answers()
    answers.feed(HEAD)
    answers.feed(BODY)

    assert answers.feed(HEAD + BODY) == (202, HEAD[:-4], BODY)


def test_header_names_in_any_case():
    """HTTP's header names have no case: a server that writes them small is as right."""
    answer = Answers().feed(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nlocation: /x\r\n\r\n{}")

    assert answer is not None
    assert (answer.body, answer.location) == (b"{}", "/x")


def test_an_empty_body():
    """An answer without a body is whole at once: waiting for more would hang the load."""
    assert Answers().feed(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n") is not None


@pytest.mark.parametrize(
    ("received", "why"),
    [
        (HEAD + BODY + b"H", "1 bytes more"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "no content-length"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", r"not HTTP/1\.1"),
    ],
)
def test_what_can_be_no_answer(received, why):
    """An answer whose end is not found makes every count after it wrong."""
    with pytest.raises(UnreadableError, match=why):
        Answers().feed(received)


def test_no_location():
    """A task that can't be asked for must end the run, not be asked for at a wrong place."""
    answer = Answers().feed(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    assert answer is not None
    with pytest.raises(UnreadableError, match="no location"):
        _ = answer.location
