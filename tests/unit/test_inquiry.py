"""The evidence that is gathered on a question: from a projection that is really there, and servers that are a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from farandole import Expect
from farandole.clock import ManualClock
from farandole.declaration import Declaration, Subscription
from farandole.event import Interval, Position
from farandole.inquiry import Inquiry
from farandole.kafka.admin import Committed, Group
from farandole.kafka.permissions import Denied, Right
from farandole.ledger.database import open_projection
from farandole.ledger.entry import LEDGER_TOPIC, Entry
from farandole.ledger.projection import Line, project
from farandole.scan import Scan, Seen

DAY = datetime(2026, 11, 23, tzinfo=UTC)
HOUR = timedelta(hours=1)
ABOUT = Interval(DAY, DAY + 24 * HOUR)


def declared(name: str, takes: str, gives: str, where: str = "", **more) -> Declaration:
    return Declaration(name, "", "beginning", (Subscription("day", takes, where),), (), emits=(gives,), **more)


MERGE = declared("merge", "staged.v1", "merged.v1")
MART = declared("mart", "merged.v1", "mart.v1", "table == 'flights'")


@dataclass
class Servers:
    """Topics as lists, one partition each, and how far each group has read them."""

    topics: dict[str, list[Seen]] = field(default_factory=dict)
    read: dict[tuple[str, str], int] = field(default_factory=dict)
    ledger_end: int = 0

    def put(
        self, topic: str, identity: str, at: datetime = DAY + 30 * HOUR, interval: Interval = ABOUT, **value
    ) -> None:
        records = self.topics.setdefault(topic, [])
        position = Position(topic, f"T-{topic}", 0, len(records))
        records.append(Seen(identity, position, at, value, interval))

    def scan(self, topic: str, _: Interval) -> Scan:
        return Scan(there=topic in self.topics, seen=self.topics.get(topic, []))

    @property
    def admin(self):
        return SimpleNamespace(
            committed=lambda group: {(t, 0): Committed(at) for (g, t), at in self.read.items() if g == group},
            group=lambda _: Group("STABLE", 1),
            partitions=lambda names: dict.fromkeys(names, 1),
            ends=lambda places, committed: {
                at: self.ledger_end if at[0] == LEDGER_TOPIC else len(self.topics.get(at[0], [])) for at in places
            },
        )


class Ask:
    def __init__(self, folder) -> None:
        self.servers, self.lines = Servers(), 0
        self.database = open_projection(f"sqlite:///{folder}/projector.db")
        self.told()

    def told(self, *entries: Entry) -> None:
        lines = [
            Line(0, self.lines + n, one, one.id, round((DAY + 31 * HOUR).timestamp() * 1000))
            for n, one in enumerate(entries)
        ]
        self.lines += len(lines)
        self.servers.ledger_end = self.lines
        with self.database.writing() as conn:
            project(conn, lines, topic_id="L", read_to={0: self.lines}, checked_at={0: 1})

    denied: Sequence[Denied] = ()

    def ran(self, pipeline: str, topic: str, offset: int, state: str = "done", interval: Interval = ABOUT) -> None:
        seen = self.servers.topics[topic][offset]
        self.servers.read[pipeline, topic] = offset + 1
        trigger = {
            "signal": "day", "topic": topic, "topic_id": seen.position.topic_id, "partition": 0, "offset": offset,
            "event_id": seen.id, "event_source": "/s", "event_type": topic, "digest": b"12345678", "derived": False,
        }  # fmt: skip
        self.told(Entry("run", pipeline, f"{pipeline}-{offset}", state=state, interval=interval, triggers=[trigger]))

    def verdict(self, asked: Declaration, *others: Declaration):
        inquiry = Inquiry(
            self.servers,  # type: ignore[arg-type]
            self.database.reading,
            {one.name: one for one in (asked, *others)},
            (),
            lambda _: None,
            ManualClock(DAY + 40 * HOUR),
            lambda _: self.denied,
        )
        return inquiry.verdict(asked.name, ABOUT)


@pytest.fixture
def ask(tmp_path):
    made = Ask(tmp_path)
    yield made
    made.database.close()


def test_a_question_goes_up_with_the_criteria_that_tell_tables_apart(ask):
    ask.servers.put("staged.v1", "s1", table="weather")
    ask.ran("merge", "staged.v1", 0)
    ask.servers.put("staged.v1", "s2", table="flights")
    ask.ran("merge", "staged.v1", 1, "dead")
    ask.servers.put("merged.v1", "m1", table="weather")
    ask.servers.read["mart", "merged.v1"] = 1
    ask.servers.put("merged.v1", "m0", DAY, Interval(DAY - 24 * HOUR, DAY), table="flights")
    ask.ran("mart", "merged.v1", 1, interval=Interval(DAY - 24 * HOUR, DAY))

    found = ask.verdict(MART, MERGE)

    assert (found.cause, found.pipeline, found.proof[0]["run"]) == ("dead", "merge", "merge-1")


def test_what_another_table_did_is_no_answer_for_the_one_that_is_missing(ask):
    ask.servers.put("staged.v1", "s1", table="weather")
    ask.ran("merge", "staged.v1", 0)
    ask.servers.put("merged.v1", "m1", table="weather")
    ask.servers.put("merged.v1", "m0", DAY, Interval(DAY - 24 * HOUR, DAY), table="flights")
    ask.ran("mart", "merged.v1", 1, interval=Interval(DAY - 24 * HOUR, DAY))

    found = ask.verdict(MART, MERGE)

    assert (found.cause, found.pipeline) == ("never-sent", "merge"), "of flights nothing was ever staged"


def test_runs_whose_events_are_gone_from_the_topic_still_count(ask):
    ask.servers.put("staged.v1", "s1", table="flights")
    ask.ran("merge", "staged.v1", 0)
    ask.servers.topics["staged.v1"].clear()
    ask.servers.topics["merged.v1"] = []
    found = ask.verdict(MART, MERGE)
    assert (found.cause, found.pipeline) == ("sent-nothing", "merge")


def test_of_a_day_that_is_expected_whole_the_first_hour_that_has_not_run_is_the_question(ask):
    expecting = declared("mart", "merged.v1", "mart.v1", expect=(Expect("06:30 UTC"),))
    hours = [Interval(DAY + n * HOUR, DAY + (n + 1) * HOUR) for n in range(24)]
    for n, hour in enumerate(hours):
        ask.servers.put("merged.v1", f"m{n}", interval=hour, table="flights")
        ask.ran("mart", "merged.v1", n, "dead" if n == 7 else "done", hour)
    assert ask.verdict(expecting).cause == "dead"

    with ask.database.writing() as conn:  # nobody has closed what is expected, and the seventh hour never came
        conn.exec_driver_sql("delete from run where id = 'mart-7'")
        conn.exec_driver_sql("delete from run_event where run_id = 'mart-7'")
        columns = (
            "id",
            "expectation",
            "name",
            "pipeline",
            "event_type",
            "criteria",
            "day",
            "state",
            "proof",
            "actor",
            "reason",
            "telling",
        )
        told = dict.fromkeys(columns, "") | {"id": "x1", "pipeline": "mart", "state": "missed", "day": "2026-11-24"}
        start, end = (round(t.timestamp() * 1000) for t in (ABOUT.start, ABOUT.end))
        told |= {"deadline": end, "alarm_at": end, "interval_start": start, "interval_end": end, "topic_offset": 0}
        names = ", ".join(told)
        conn.exec_driver_sql(
            f"insert into expectation ({names}) values ({', '.join('?' * len(told))})", tuple(told.values())
        )
    ask.servers.topics["merged.v1"][7] = ask.servers.topics["merged.v1"][6]

    found = ask.verdict(expecting)

    assert (found.cause, found.interval) == ("late", hours[7])


def test_where_nothing_is_expected_what_ran_is_the_answer(ask):
    ask.servers.put("merged.v1", "m1", interval=Interval(DAY, DAY + HOUR), table="flights")
    ask.ran("mart", "merged.v1", 0, interval=Interval(DAY, DAY + HOUR))
    assert ask.verdict(MART).cause == "ran"


def test_what_only_the_one_who_asks_may_not_do_is_no_cause_unless_it_keeps_him_from_looking(ask):
    ask.servers.put("staged.v1", "s1", table="weather")
    write, read = Right("Write", "topic", MERGE.retry_topic), Right("Read", "topic", "staged.v1")
    ask.denied = [Denied(write)]
    assert ask.verdict(MERGE).cause != "denied"
    ask.denied = [Denied(write, "User:merger")]
    assert (ask.verdict(MERGE).cause, ask.verdict(MERGE).says) == ("denied", f"User:merger may not {write}")
    ask.denied = [Denied(read)]
    assert ask.verdict(MERGE).cause == "denied"
