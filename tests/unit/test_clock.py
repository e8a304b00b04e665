"""Spans, labels, and a clock that a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.clock import ManualClock, SystemClock, iso, seconds


@pytest.mark.parametrize(
    ("span", "found"),
    [("250ms", 0.25), ("30s", 30), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400), (" 5 s ", 5), (7, 7), (0.5, 0.5)],
)  # fmt: skip
def test_a_span_is_read_in_seconds(span, found):
    assert seconds(span) == found


@pytest.mark.parametrize("span", ["", " ", "5", "h", "5x", "1h 5", "-5s", "5s,"])
def test_what_is_no_span_is_refused_with_an_example(span):
    with pytest.raises(ValueError, match="250ms"):
        seconds(span)


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_parts_of_a_span_add_up(hours, minutes, rest):
    assert seconds(f"{hours}h{minutes}m{rest}s") == hours * 3600 + minutes * 60 + rest


def test_a_manual_clock_stands_until_it_is_moved():
    clock = ManualClock(datetime(2013, 1, 1, tzinfo=UTC))
    clock.advance("1h")
    assert clock.now() == datetime(2013, 1, 1, 1, tzinfo=UTC)
    assert clock.monotonic() == 3600
    assert clock.millis() == 1356998400000 + 3_600_000


def test_the_systems_clock_is_in_utc_and_its_monotonic_side_never_runs_back():
    clock = SystemClock()
    before = clock.monotonic()
    assert clock.now().tzinfo is UTC
    assert abs(clock.millis() / 1000 - clock.now().timestamp()) < 5
    assert clock.monotonic() >= before


def test_a_moment_is_written_in_utc_with_milliseconds():
    assert iso(datetime(2013, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))) == "2013-01-01T00:00:00.000Z"
