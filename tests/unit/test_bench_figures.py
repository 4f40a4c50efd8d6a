"""How rounds become a figure and a verdict: a mistake here would say of the product what is not so."""

from __future__ import annotations

import pytest
from bench import table
from bench.figures import Measured, Row, Sample, Target, fallen, quantile, ratio, summarise
from bench.load import Report
from bench.programs import WrongRunError
from bench.rows.killing import added_by_kill

ROW = Row("direct", "requests/s", Target(at_least=0.55))


def test_the_figure_is_the_median_with_its_spread():
    """One noisy round must not make the figure, and must be seen in its spread."""
    measured = summarise(ROW, [Sample([value], {"ours /s": 10 * value}) for value in (0.6, 0.1, 0.7)])

    assert (measured.value, measured.low, measured.high, measured.rounds) == (0.6, 0.1, 0.7, 3)
    assert measured.absolutes == {"ours /s": 6.0}


def test_pooled_rounds_give_one_quantile():
    """A p99 of each round's few calls would be their maximum, and its median no p99."""
    slow = Row("killed", "added", Target(at_most=50), "ms", 0.99)

    measured = summarise(slow, [Sample(range(100)), Sample(range(100, 200))])

    assert (measured.value, measured.low, measured.high) == (197, 0, 199)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2.5), (0.99, 4), (0.25, 1), (1.0, 4)])
def test_quantile(share, expected):
    """The percentiles of a load are read from it."""
    assert quantile([4, 1, 3, 2], share) == expected


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target(at_least=0.55), 0.55, True),
        (Target(at_least=0.55), 0.549, False),
        (Target(at_most=1.5), 1.5, True),
        (Target(at_most=1.5), 1.51, False),
        (Target(), 9.0, True),
    ],
)
def test_a_target_is_met_at_its_bound(target, value, met):
    """≥ and ≤ taken for one another would turn the verdict around."""
    assert target.met(value) is met


def test_a_row_without_a_target_has_no_verdict():
    """What is only stated must not be shown as passed."""
    assert summarise(Row("client", "the load"), [Sample([3.0])]).verdict == "stated"


def test_nothing_measured_is_no_figure():
    """A scene that yields nothing for one of its rows is broken."""
    with pytest.raises(ValueError, match="direct: nothing was measured"):
        summarise(ROW, [])


def test_a_limit_of_nothing_is_no_ratio():
    """A limit that did not run would make any figure seem fine."""
    assert ratio(1.0, to=2.0) == 0.5
    with pytest.raises(ValueError, match="the limit did nothing"):
        ratio(1.0, to=0.0)


def test_the_table_says_what_is_not_met():
    """A row that fell short must be seen at a glance, in the table and in the JSON."""
    measured = [summarise(ROW, [Sample([0.3], {"ours /s": 4992.4})])]

    drawn = table.text(measured)

    assert "0.3     0.3-0.3  ≥ 0.55  NOT MET" in drawn
    assert "direct: ours /s 4,992" in drawn
    assert table.to_json(measured)["direct"]["verdict"] == "NOT MET"


def test_what_a_kill_added():
    """Each connection's call that was out at the kill and its next one count, and only if they were kept."""
    times = [
        (0, 0.0, 0.1, 200),  # before: what is usual
        (0, 0.9, 1.3, 202),  # out at the kill
        (0, 1.3, 1.5, 202),  # the first after it
        (0, 1.5, 1.55, 202),  # the second: it meets no kill any more
        (1, 0.95, 1.1, 200),  # out, and answered all the same
        (1, 1.1, 1.2, 202),
        (1, 1.4, 1.45, 202),
    ]

    added, later = added_by_kill(Report(7, 7, 1.0, 1.0, 1.0, times), 1.0)

    assert sorted(added) == pytest.approx([0.0, 100.0, 300.0])
    assert sorted(later) == pytest.approx([50.0, 50.0, 200.0])


def test_a_kill_beside_the_load():
    """A service that was killed before the load began, or after it, says nothing."""
    with pytest.raises(WrongRunError):
        added_by_kill(Report(1, 1, 1.0, 1.0, 1.0, [(0, 0.0, 0.1, 200)]), 5.0)


@pytest.mark.parametrize(
    ("target", "value", "published", "falls"),
    [
        (Target(at_least=0.5), 0.41, 0.6, False),
        (Target(at_least=0.5), 0.39, 0.6, True),
        (Target(at_least=0.5), 0.51, 0.9, False),
        (Target(at_most=2.5), 3.9, 3.0, False),
        (Target(at_most=2.5), 4.1, 3.0, True),
        (None, 1000.0, 1.0, False),
    ],
)
def test_what_is_worse_by_a_third_has_fallen(target, value, published, falls):
    """Else a change makes a road slow and CI says nothing, or says so of every noisy run."""
    measured = Measured(Row("row", "text", target), value, value, value, 1, {})

    assert fallen(measured, published) is falls
