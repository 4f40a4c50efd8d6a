"""Page tokens of operators' listings: a client may send anything as one."""

from __future__ import annotations

import pytest

from poste.queue.operators import DeadPage, EndedPage, Place, Search
from poste_mom.messages import listings

#: 1 ms after a second, which no float holds exactly.
INSTANT = 1_700_000_000.001


def test_a_place_among_dead_letters_stands_in_its_token_to_the_millisecond() -> None:
    """Many die in one second: a place that is off by a millisecond would skip some, or list them twice."""
    place = Place(INSTANT, "a.key")

    token = listings.dead_page("queue", DeadPage([], place, INSTANT)).next_page_token

    assert listings.place(token) == place


def test_a_search_goes_on_where_its_token_says() -> None:
    """Otherwise what ended after the search began would be dropped with the rest."""
    search = Search(INSTANT, 7)

    assert listings.search(listings.ended_page(EndedPage(0, search)).next_page_token) == search


@pytest.mark.parametrize("token", ["x.key", ".key", "nan.1", "1e3.1", "-1.1", f"{'9' * 400}.1"])
def test_a_token_that_was_never_given_is_refused(token: str) -> None:
    """The operator would get an internal error, or a page from nowhere."""
    with pytest.raises(ValueError):  # noqa: PT011 - whatever its text
        listings.place(token)
    with pytest.raises(ValueError):  # noqa: PT011 - the same
        listings.search(token)


@pytest.mark.parametrize("token", ["1.-1.0", f"1.{2**64}.0", "1.0.-1"])
def test_a_place_that_no_server_gives_is_refused(token: str) -> None:
    """Redis' refusal of it would be taken for its absence, and told to the client as that."""
    with pytest.raises(ValueError):  # noqa: PT011 - whatever its text
        listings.search(token)
