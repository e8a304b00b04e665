"""Landings are announced in order, and again whenever that is in doubt, always with the same ids."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from farandole.clock import ManualClock
from farandole.errors import BrokerUnreachable
from farandole.event import Interval
from farandole.sources.announce import Announcer, watch
from farandole.sources.metadata import Sources
from schemas.events import FileLanded
from services.landing.handlers import landed_events

HOUR = Interval(datetime(2013, 1, 1, 6, tzinfo=UTC), datetime(2013, 1, 1, 7, tzinfo=UTC))
SOURCES = Sources("topology/sources")


def landing(number):
    interval = Interval(HOUR.start + timedelta(hours=number), HOUR.end + timedelta(hours=number))
    return f"id-{number}", FileLanded(f"file:///raw/{number}", "weather", "csv", interval, 7, "d")


def announcer(send, times=1):
    return Announcer(lambda event_type, value: event_type.encode(), send, ManualClock(), times)


def ids(records):
    return [dict(record.headers)["ce_id"].decode() for record in records]


def test_a_landing_told_twice_is_told_later_again_with_the_same_id_and_key():
    sent = []

    told = announcer(sent.extend, times=2).announce([landing(0), landing(1)])

    assert told == 2
    assert ids(sent) == ["id-0", "id-1", "id-0", "id-1"]
    assert {record.key for record in sent} == {b"weather"}
    assert {dict(record.headers)["ce_correlationid"] for record in sent} == {b"id-0", b"id-1"}


def test_nothing_new_is_told_as_nothing():
    assert announcer(lambda _: pytest.fail("nothing is to be sent")).announce([]) == 0


def test_what_was_not_acknowledged_is_told_again_with_the_same_id(tmp_path, monkeypatch):
    monkeypatch.setattr("farandole.sources.announce.BACKOFF", 0)
    folder = tmp_path / "weather/2013/01/01/06"
    folder.mkdir(parents=True)
    (folder / "weather.csv").write_text("origin\n")
    attempts, said = [], []

    def send(records):
        attempts.append(ids(records))
        if len(attempts) == 1:
            raise BrokerUnreachable("no broker answers")

    watch(
        lambda good, seen: landed_events(str(tmp_path), good, seen),
        SOURCES,
        announcer(send),
        threading.Event(),
        lambda event, **_: said.append(event),
        until_drained=True,
    )

    assert attempts == [attempts[0], attempts[0]]
    assert said == ["landing.waits", "landing.told"]
