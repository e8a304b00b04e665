"""What is remembered of a day, whatever the order and however often it is told; and what of the ledger is told at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import faust
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.completion import Completion, came, remembered
from farandole.errors import SettingsError
from farandole.event import Interval
from farandole.faust import credentials
from farandole.ledger.completions import Completions, completion
from farandole.ledger.entry import Entry
from farandole.ledger.projection import Line
from farandole.rhythm import Came
from farandole.topics import TELEMETRY, own_schemas

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def done(minute: int, hour: int | None = None) -> Completion:
    about = None if hour is None else Interval(NOON + timedelta(hours=hour), NOON + timedelta(hours=hour + 1))
    return Completion(f"run {minute} {hour}", "mart", NOON + timedelta(minutes=minute), interval=about)


TOLD = st.lists(st.builds(done, st.integers(0, 600), st.none() | st.integers(-3, 3)), max_size=12)


def fold(completions):
    day = {}
    for one in completions:
        day = remembered(day, one)
    return day


@given(TOLD, st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_changes_what_is_remembered(told, luck):
    again = [*told, *told]
    luck.shuffle(again)
    assert fold(again) == fold(told)


def test_what_came_is_the_first_completion_of_each_interval_and_of_each_quarter_of_an_hour():
    about = done(5, -1)
    day = fold([done(9, -1), about, done(20), done(29), done(31)])
    assert sorted(came(day), key=lambda one: one.at) == [
        Came(about.done_at, about.interval), Came(done(20).done_at), Came(done(31).done_at),
    ]  # fmt: skip


def line(**fields) -> Line:
    entry = Entry("run", "mart", "r1", state="done", **fields)
    return Line(0, 7, entry, entry.id, round(NOON.timestamp() * 1000))


def test_a_run_that_is_done_is_told_and_nothing_else_of_the_ledger():
    sent = []
    lines = [
        line(interval=done(0, 1).interval, started_at=NOON),
        Line(0, 8, Entry("run", "mart", "r2", state="dead")),
        Line(0, 9, Entry("fact", "mart", "f", fact="replay.detected")),
        Line(0, 10, None, "r0"),
    ]
    Completions(lambda _topic, record: record, sent.extend).tell(lines)
    assert [(one.topic, one.key, Completion.of(one.value)) for one in sent] == [
        (TELEMETRY, b"mart", Completion("r1", "mart", NOON, 0, NOON, done(0, 1).interval)),
    ]


def test_a_completion_has_the_fields_of_its_schema():
    assert {field["name"] for field in own_schemas()[TELEMETRY]["fields"]} == set(completion(line()).record())


def test_client_properties_are_said_in_fausts_words():
    assert credentials({}) is None
    named = {"security.protocol": "sasl_plaintext", "sasl.username": "me", "sasl.password": "x"}
    found = credentials({**named, "sasl.mechanism": "SCRAM-SHA-512"})
    assert (found.username, found.mechanism.value) == ("me", "SCRAM-SHA-512")
    assert isinstance(credentials({"security.protocol": "SSL"}), faust.SSLCredentials)
    with pytest.raises(SettingsError, match="OAUTHBEARER"):
        credentials({**named, "sasl.mechanism": "OAUTHBEARER"})
