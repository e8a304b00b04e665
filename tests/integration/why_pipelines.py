"""Pipelines that did not run, each for a reason of its own. They share one topic, and take what is sent to them alone."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, fields
from typing import Any

from farandole import Expect, Pipeline, Retry, by, step, when
from farandole.event import Interval, fact

WORLD = os.environ.get("RUNTIME_WORLD", "none")
SENT, PASSED, MADE, BROKEN, SHORT, NOWHERE = (
    f"why.{WORLD}-{name}.v1"
    for name in ("day.sent", "day.passed", "day.made", "broken.sent", "short.sent", "nowhere.sent")
)
gate = threading.Event()
gate.set()
api = {"down": False}


class _Record:
    __slots__ = ()

    @classmethod
    def of(cls, record: Any) -> Any:
        told = {f.name: record[f.name] for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{**told, "interval": Interval.of(told["interval"])})

    def record(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"interval": self.interval.record()}  # type: ignore[arg-type, attr-defined]


def _event(topic: str, name: str) -> Any:
    @dataclass(frozen=True, slots=True)
    class Event(_Record):
        feed: str
        key: str
        kind: str
        interval: Interval

    Event.__name__ = Event.__qualname__ = name
    return fact(topic, key=("key",))(Event)


DaySent, DayPassed, DayMade, BrokenSent, ShortSent, NowhereSent = (
    _event(topic, name)
    for topic, name in zip(
        (SENT, PASSED, MADE, BROKEN, SHORT, NOWHERE),
        ("DaySent", "DayPassed", "DayMade", "BrokenSent", "ShortSent", "NowhereSent"),
        strict=True,
    )
)
_TIME = {"type": "long", "logicalType": "timestamp-millis"}
_ABOUT = {
    "type": "record",
    "name": "About",
    "fields": [{"name": "start", "type": _TIME}, {"name": "end", "type": _TIME}],
}


def _schema() -> dict[str, Any]:
    texts = [{"name": name, "type": "string"} for name in ("feed", "key", "kind")]
    return {"type": "record", "name": "Day", "fields": [*texts, {"name": "interval", "type": _ABOUT}]}


SCHEMAS = {topic: _schema() for topic in (SENT, PASSED, MADE, BROKEN, SHORT, NOWHERE)}


class Foreseen(Exception):
    """An error that becomes an event."""


def instead(day: DaySent, error: Foreseen) -> DayMade:
    return DayMade(day.feed, day.key, "instead", day.interval)


@step(retry=Retry(1), catch={Foreseen: instead})
def make(day: DaySent) -> DayMade:
    if day.kind == "foreseen":
        raise Foreseen(day.key)
    if day.kind == "bad":
        raise ValueError(f"the rows of {day.key} are bad")
    return DayMade(day.feed, day.key, "made", day.interval)


@step(retry=Retry(2, backoff="2h..2h"))
def make_later(day: DaySent) -> DayMade:
    raise OSError("the lake is locked")


@step(needs="rates-api")
def ask(day: DaySent) -> DayMade:
    if api["down"]:
        raise ConnectionRefusedError("nobody listens there")
    return DayMade(day.feed, day.key, "asked", day.interval)


def make_slowly(day: DaySent) -> DayMade:
    gate.wait()
    return DayMade(day.feed, day.key, "slow", day.interval)


def pass_on(day: DaySent) -> DayPassed | None:
    if day.kind == "bad":
        raise ValueError(f"the rows of {day.key} are bad")
    return None if day.kind == "quiet" else DayPassed(day.feed, day.key, day.kind, day.interval)


def finish(day: DayPassed) -> DayMade:
    return DayMade(day.feed, day.key, "finished", day.interval)


def meet(left: DaySent, right: DaySent) -> DayMade:
    return DayMade(left.feed, left.key, "met", left.interval)


def read_broken(day: BrokenSent) -> DayMade:
    return DayMade(day.feed, day.key, "read", day.interval)


def read_short(day: ShortSent) -> DayMade:
    return DayMade(day.feed, day.key, "read", day.interval)


def read_nowhere(day: NowhereSent) -> DayMade:
    return DayMade(day.feed, day.key, "read", day.interval)


def _named(name: str) -> str:
    return f"why-{name}-{WORLD}"


def _listener(feed: str, call: Any, **words: Any) -> Any:
    """A pipeline that takes what is sent to `feed`."""
    own = {"name": _named(feed), "steps": [call], "since": "beginning", "__module__": __name__, **words}
    if "join" not in words:
        own.setdefault("day", when(DaySent, where=f"feed == '{feed}'"))
    return type(feed.title(), (Pipeline,), {"__doc__": f"Takes what is sent to {feed}.", **own})


Plain = _listener("plain", make)
Parks = _listener("parks", make_later)
Asks = _listener("asks", ask)
Slow = _listener("slow", make_slowly, slots=1)
Once = _listener("once", make, once=["key"], on_conflict="drop")
Now = _listener("now", make, since="now")
Back = _listener("back", make, since="now", on_rewind="ignore")
Strict = _listener("strict", make, day=when(DaySent, where="feed == 'strict' and kind == 'final'"))
Lost = _listener("lost", make)
Quiet = _listener("quiet", make)
Silent = _listener("silent", make)
Desk = _listener("desk", make, expect=Expect(by="06:30 UTC", each="weekday"))
Pair = _listener(
    "pair",
    meet,
    left=when(DaySent, where="feed == 'pair' and kind == 'left'"),
    right=when(DaySent, where="feed == 'pair' and kind == 'right'"),
    join=by("interval", within="6h"),
)
Broken = _listener("broken", read_broken, day=when(BrokenSent))
Short = _listener("short", read_short, day=when(ShortSent))
Nowhere = _listener("nowhere", read_nowhere, day=when(NowhereSent))

CHAIN = {
    "first": f"""
pipeline: {_named("first")}
about: The first of three.
since: beginning
when: {{day: {{event: {SENT}, where: "feed in ['chain', 'beside']"}}}}
steps: [{{call: "{__name__}:pass_on", retry: {{times: 1}}}}]
emits: [{PASSED}]
""",
    "second": f"""
pipeline: {_named("second")}
about: The second of three, which listens to the first.
since: beginning
when: {{day: {{event: {PASSED}, where: "feed == 'chain'"}}}}
steps: [{{call: "{__name__}:finish"}}]
emits: [{MADE}]
""",
    "third": f"""
pipeline: {_named("third")}
about: The last of three.
since: beginning
when: {{day: {{event: {MADE}, where: "feed == 'chain'"}}}}
steps: [{{call: "builtins:print"}}]
""",
    "ticked": f"""
pipeline: {_named("ticked")}
about: Listens to the clock.
since: beginning
when: {{tick: {{event: clock.ticked.v1, where: "schedule == 'nightly'"}}}}
steps: [{{call: "builtins:print"}}]
""",
}
"""Pipelines that stand under services/, where `farandole why` finds what makes the events of others."""
