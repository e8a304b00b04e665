"""Closing the books of an interval: what landed and what became of it, as sets of ids with a digest each, signed. Pure.

A statement says what was true at an offset of the ledger. What is done again later changes the sets, so whoever makes
them again sees that the books are open once more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from farandole.clock import iso
from farandole.errors import FarandoleError, SettingsError
from farandole.event import Interval
from farandole.why import Evidence

SCHEMA = "farandole.close/1"
SETS = ("landed", "done", "caught", "filtered", "duplicate", "resolved", "waiting", "parked", "dead", "uncertain")
"""The sets of event ids. The first is all of the others together; the last four have to be empty."""
OPEN = ("waiting", "parked", "dead", "uncertain")
LEAST = 16
"""Characters that a key has at least."""
_UNREAD = timedelta(days=2)  # after its end, in which an unreadable record may be about an interval
_NAMED = 5  # ids that an open matter names

_OF_EVENTS = {"refused": "filtered", "duplicate": "duplicate"}
_OF_RUNS = {"done", "caught", "resolved", *OPEN}


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement, the signature over it, and the name of the key that made it."""

    statement: Mapping[str, Any]
    signature: str
    key: str

    @property
    def id(self) -> str:
        """What tells this statement from any other."""
        return hashlib.sha256(_canonical(self.statement)).hexdigest()


def digest(ids: Iterable[str]) -> dict[str, Any]:
    """How many ids, and the digest of the set of them.

    >>> digest(["b", "a"]) == digest(["a", "b", "a"])
    True
    """
    every = sorted(set(ids))
    return {"count": len(every), "sha256": hashlib.sha256("\n".join(every).encode()).hexdigest()}


def sets_of(e: Evidence) -> dict[str, set[str]]:
    """The ids of all events about the interval, by what became of them. Each stands in one set besides ``landed``."""
    found: dict[str, str] = {}
    for run in sorted(e.runs, key=lambda one: one["epoch"]):
        if run["state"] in _OF_RUNS:
            found.update(dict.fromkeys(run["events"], run["state"]))
    for event in (event for one in e.inputs for event in one.landed if event.outcome != "unreadable"):
        if event.outcome in _OF_EVENTS:
            found.setdefault(event.id, _OF_EVENTS[event.outcome])
        elif event.run is not None and event.run["state"] in _OF_RUNS:
            found.setdefault(event.id, event.run["state"])
    sets: dict[str, set[str]] = {name: set() for name in SETS}
    for identity, outcome in found.items():
        sets["landed"].add(identity)
        sets[outcome].add(identity)
    return sets


def open_matters(e: Evidence, sets: Mapping[str, set[str]]) -> list[str]:
    """What keeps the books open, a line for each, with ids. Nothing where they can be closed."""
    matters = []
    if e.now < e.interval.end:
        matters.append(f"the interval is not over: it ends {iso(e.interval.end)}")
    if not e.current:
        matters.append("the projection has not read the ledger to its end: farandole run projector")
    matters += [
        f"a gap is open: {gap['topic']}[{gap['partition']}] from {gap['from']} to {gap['to']} ({gap['id']})"
        for gap in e.gaps
        if gap["state"] == "open"
    ]
    for outcome, what in (("ahead", "not read yet"), ("unsettled", "below the offset, without an outcome")):
        ids = [event.id for one in e.inputs for event in one.landed if event.outcome == outcome]
        matters += [f"{_many(ids)} {what}: {_few(ids)}"] if ids else []
    broken = [
        x for one in e.inputs for x in one.landed if x.outcome == "unreadable" and x.at < e.interval.end + _UNREAD
    ]
    dead = [x.place for x in broken if x.run is None or x.run["state"] not in ("resolved", "filtered")]
    matters += [f"{_many(dead)} that nobody can read, and that may be about it: {_few(dead)}"] if dead else []
    matters += [f"{_many(sets[name])} {name}: {_few(sets[name])}" for name in OPEN if sets[name]]
    if e.expected and e.expected["state"] in ("pending", "missed"):
        matters.append(f"what is expected by {e.expected['deadline']} is {e.expected['state']}: {e.expected['id']}")
    matters += [f"{one.event_type} holds more than can be counted" for one in e.inputs if one.cut]
    if not sets["landed"] and not (e.expected and e.expected["state"] == "waived"):
        matters.append("nothing has come about it, and nobody has waived it")
    return matters


def statement(
    e: Evidence, sets: Mapping[str, set[str]], outputs: Sequence[str], ledger: Mapping[str, Any], by: Mapping[str, Any]
) -> dict[str, Any]:
    """The statement. `outputs` are ids with the digest of what they say, `by` who closes when, and why."""
    return {
        "schema": SCHEMA,
        "pipeline": e.pipeline,
        "interval": {"start": iso(e.interval.start), "end": iso(e.interval.end)},
        "sets": {name: digest(sets[name]) for name in SETS},
        "outputs": digest(outputs),
        "runs": digest(run["id"] for run in e.runs),
        "epochs": sorted({run["epoch"] for run in e.runs}),
        "expectation": e.expected and {"id": e.expected["id"], "state": e.expected["state"]},
        "ledger": dict(ledger),
        **by,
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two statements about one interval: the sets, the runs or the outputs."""
    told = [
        f"{name}: {before['sets'][name]['count']} then, {now['sets'][name]['count']} now"
        for name in SETS
        if before["sets"][name] != now["sets"][name]
    ]
    told += [
        f"{name}: {before[name]['count']} then, {now[name]['count']} now"
        for name in ("runs", "outputs")
        if before[name] != now[name]
    ]
    return told


def sign(told: Mapping[str, Any], key: str) -> Signed:
    """Signed with a secret (HMAC-SHA256). Raises SettingsError for one that is none."""
    _usable(key)
    return Signed(told, hmac.new(key.encode(), _canonical(told), hashlib.sha256).hexdigest(), key_name(key))


def verify(one: Signed, key: str) -> None:
    """Raises FarandoleError where the signature is not that of the statement by this key."""
    _usable(key)
    if one.key != key_name(key):
        raise FarandoleError(
            f"the statement was signed with the key {one.key}, and this is {key_name(key)}",
            place="FARANDOLE_CLOSE_KEY",
            hint="verify it with the key of then",
        )
    if not hmac.compare_digest(sign(one.statement, key).signature, one.signature):
        raise FarandoleError(
            "the signature is not that of the statement: one of them was changed",
            place=f"books of {one.statement.get('pipeline')}",
            hint="the ledger topic holds what was written first: farandole events tail farandole.ledger.v1",
        )


def key_name(key: str) -> str:
    """The name of a key, which does not give it away."""
    return hashlib.sha256(b"farandole.close\x00" + key.encode()).hexdigest()[:12]


def fact_id(pipeline: str, interval: Interval) -> str:
    """The id under which the books of an interval stand in the ledger: a later statement takes the place."""
    return f"fact:{pipeline}:books.closed:{iso(interval.start)}/{iso(interval.end)}"


def _usable(key: str) -> None:
    if len(key) < LEAST:
        raise SettingsError(
            f"books are signed with a secret of {LEAST} characters at least",
            place="FARANDOLE_CLOSE_KEY",
            hint="make one: openssl rand -hex 32",
        )


def _canonical(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _many(ids: Iterable[str]) -> str:
    count = len(list(ids))
    return f"{count} event{'s' * (count != 1)}"


def _few(ids: Iterable[str]) -> str:
    some = sorted(ids)
    return ", ".join(some[:_NAMED]) + (" …" if len(some) > _NAMED else "")
