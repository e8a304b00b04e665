"""The checker outside: what stands on the topics and in the tables, read by plain clients, and what of it must not be.

It imports nothing of the library: a fault of the library cannot hide from it in a helper that both use. The ledger is
read by its schema file. :func:`judge` works on plain data, so it is itself tested on planted histories.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import sqlalchemy as sa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

LEDGER = "farandole.ledger.v1"
LEDGER_SCHEMA = json.loads((Path(__file__).parents[2] / f"farandole/avro/{LEDGER}.avsc").read_text())

SETTLED = {"done", "caught", "dead", "uncertain", "resolved", "expired", "joined"}
FINAL = SETTLED - {"dead", "uncertain"}
EXPECTED = {"good": {"done"}, "skip": {"filtered"}, "bad": {"dead"}}
"""The outcomes that an event of a kind may have; a history says so for kinds of its own."""

Where = tuple[str, int, int]
"""Topic, partition, offset."""


class Anomaly(NamedTuple):
    """What must not be: its name, and where."""

    name: str
    detail: str


class Landed(NamedTuple):
    """A record of an input. `id` says which event it tells, `kind` what must become of it, `what` it is about."""

    at: Where
    id: str
    key: bytes | None = None
    kind: str = "good"
    what: Any = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Output(NamedTuple):
    """A record of an output; `what` is the input that its payload answers, as the reader makes it out."""

    at: Where
    id: str
    key: bytes | None = None
    what: Any = None


class Entry(NamedTuple):
    """A line of the ledger about a run or a range of records."""

    id: str
    state: str
    triggers: tuple[Where, ...] = ()
    outputs: tuple[str, ...] = ()
    life: int = 0
    filtered: tuple[Where, ...] = ()
    duplicates: tuple[Where, ...] = ()
    joined: bool = False
    fact: str = ""


class Letter(NamedTuple):
    """A dead letter: the run it belongs to, the record it keeps, and what it kept of it."""

    run: str
    at: Where
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    life: int = 0
    pointer: bool = False
    edited: bool = False


class Row(NamedTuple):
    """A row of the dedup table."""

    key: bytes
    run: str
    outcome: str


@dataclass
class History:
    """Everything that can be seen of one pipeline from outside, once nothing moves any more."""

    landed: list[Landed] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)  # as a reader of what is committed sees them, in their order
    written: list[Output] = field(default_factory=list)  # and with what was aborted
    ledger: list[Entry] = field(default_factory=list)  # in order
    letters: list[Letter] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    unpublished: list[str] = field(default_factory=list)  # runs that SQL decided and Kafka was not told
    doubted: set[str] = field(default_factory=set)  # runs of which a step stands as started
    effects: list[Any] | None = None  # what was done in the database, in order
    calls: list[tuple[str, Any]] | None = None  # what was sent outside, in order: the attempt's key, and what
    effect: str = ""  # the declared kind of what is sent outside
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    positions: dict[tuple[str, int], int] = field(default_factory=dict)  # the same in SQL
    ends: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)  # stable and last offset
    expected: Mapping[str, set[str]] = field(default_factory=lambda: EXPECTED)
    ordered: bool = True  # whether the pipeline promises the order of record keys


# ---- the verdict


def judge(history: History) -> list[Anomaly]:
    """Every anomaly, each by its name; an empty list is a whole history."""
    books = _Books(history)
    checks = (
        _covered, _once, _known, _whole, _in_order, _offsets, _decided, _effects, _doubts, _as_expected, _letters,
    )  # fmt: skip
    return [anomaly for check in checks for anomaly in check(books)]


class _Books:
    """A history with its indexes."""

    def __init__(self, history: History) -> None:
        self.seen = history
        self.landed = {landed.at: landed for landed in history.landed}
        self.runs: dict[str, list[Entry]] = defaultdict(list)
        self.by_output: dict[str, Entry] = {}
        self.ran: dict[Where, Entry] = {}
        self.filtered: set[Where] = set()
        self.duplicates: set[Where] = set()
        for entry in history.ledger:
            self.filtered.update(entry.filtered)
            self.duplicates.update(entry.duplicates)
            if entry.state not in {"range", "fact"}:
                self.runs[entry.id].append(entry)
                self.by_output.update(dict.fromkeys(entry.outputs, entry))
                self.ran.update(dict.fromkeys(entry.triggers, entry))
        self.told = self.filtered | self.duplicates | self.ran.keys()
        self.of_event: dict[str, set[str]] = defaultdict(set)  # the settled runs of an event
        for run, entries in self.runs.items():
            for at in entries[-1].triggers:
                if at in self.landed and entries[-1].state != "joined":
                    self.of_event[self.landed[at].id].add(run)
        self.of_filtered = {self.landed[at].id for at in self.filtered if at in self.landed}
        self.lanes: dict[str, set[tuple[str, int, bytes | None]]] = defaultdict(set)
        for landed in history.landed:
            self.lanes[landed.id].add((*landed.at[:2], landed.key))

    def final(self) -> Iterator[tuple[str, Entry]]:
        """Each run as it stands in the end."""
        for run, entries in self.runs.items():
            yield run, entries[-1]


def _covered(books: _Books) -> Iterator[Anomaly]:
    """Below the committed offset every record has an outcome: its own, or that of its event."""
    for landed in books.seen.landed:
        topic, partition, offset = landed.at
        if offset >= books.seen.committed.get((topic, partition), -1):
            continue
        has = bool(books.of_event[landed.id]) or landed.at in books.filtered
        if landed.at not in books.told:
            yield Anomaly("poll-skip" if has else "lost-write", _place(landed))
        elif landed.at in books.duplicates and not has and landed.id not in books.of_filtered:
            yield Anomaly("lost-write", f"{_place(landed)} was a duplicate of nothing")


def _once(books: _Books) -> Iterator[Anomaly]:
    for identity, count in Counter(output.id for output in books.seen.outputs).items():
        if count > 1:
            yield Anomaly("duplicate", f"output {identity} stands {count} times")
    for run, entries in books.runs.items():
        settled = Counter(entry.life for entry in entries if entry.state in SETTLED)
        for life, count in settled.items():
            # a letter that a person settled has two outcomes in one life: that it died, and that it is resolved
            states = [e.state for e in entries if e.life == life and e.state in SETTLED]
            if count > 1 and states not in (["dead", "resolved"], ["uncertain", "resolved"]):
                yield Anomaly("duplicate", f"run {run} is settled {count} times in life {life}: {states}")
        first = next((n for n, e in enumerate(entries) if e.state in FINAL), None)
        if first is not None and first + 1 < len(entries) and entries[-1].life != entries[first].life:
            yield Anomaly("duplicate", f"run {run} went on after it was {entries[first].state}")
    for identity, runs in books.of_event.items():
        if len(runs) > 1:
            yield Anomaly("duplicate", f"event {identity} has {len(runs)} runs: {sorted(runs)}")
    for (run, life, at), count in Counter((x.run, x.life, x.at) for x in books.seen.letters).items():
        if count > 1:
            yield Anomaly("duplicate", f"{count} letters of run {run} in life {life} for {at}")
    for key, count in Counter(row.key for row in books.seen.rows).items():
        if count > 1:
            yield Anomaly("duplicate", f"{count} dedup rows for {key.hex()}")


def _known(books: _Books) -> Iterator[Anomaly]:
    """What a reader sees, the ledger knows: they are written together."""
    for output in books.seen.outputs:
        if output.id not in books.by_output:
            yield Anomaly("aborted-read", f"output {output.id} at {output.at} belongs to no run")
    died = {(e.id, e.life) for entries in books.runs.values() for e in entries if e.state == "dead"}
    for letter in books.seen.letters:
        if (letter.run, letter.life) not in died:
            yield Anomaly("aborted-read", f"a letter of run {letter.run} in life {letter.life}, which is not dead")
    if books.seen.effects is not None:
        done = {books.landed[at].what for _, e in books.final() if e.state == "done" for at in _triggers(books, e)}
        for what in dict.fromkeys(books.seen.effects):
            if what not in done:
                yield Anomaly("aborted-read", f"an effect of {what!r}, whose run is not done")


def _whole(books: _Books) -> Iterator[Anomaly]:
    """What the ledger says, a reader sees: all of a run or nothing."""
    seen = {output.id for output in books.seen.outputs}
    written = {output.id for output in books.seen.written}
    letters = {(letter.run, letter.life) for letter in books.seen.letters}
    effects = None if books.seen.effects is None else set(books.seen.effects)
    calls = None if books.seen.calls is None else {what for _, what in books.seen.calls}
    for run, entries in books.runs.items():
        for entry in entries:
            for missing in (o for o in entry.outputs if o not in seen):
                how = "was aborted" if missing in written else "was never written"
                yield Anomaly("torn", f"run {run} is {entry.state}; its output {missing} {how}")
            if entry.state == "dead" and (run, entry.life) not in letters:
                yield Anomaly("torn", f"run {run} is dead in life {entry.life} and left no letter")
    for run, entry in books.final():
        for at in _triggers(books, entry) if entry.state == "done" else ():
            what = books.landed[at].what
            if (effects is not None and what not in effects) or (calls is not None and what not in calls):
                yield Anomaly("torn", f"run {run} is done; its effect for {what!r} is not there")


def _triggers(books: _Books, entry: Entry) -> list[Where]:
    return [at for at in entry.triggers if at in books.landed]


def _in_order(books: _Books) -> Iterator[Anomaly]:
    """Of one record key of one partition, what comes out stands in the order in which it came in.

    An event that was told on several partitions or under several record keys has no one place in the order, and can be
    promised none: of two partitions that tell two such events the one way and the other, each would wait for the other.
    """
    if not books.seen.ordered:
        return
    came: dict[Any, list[int]] = defaultdict(list)
    for output in sorted(books.seen.outputs, key=lambda o: o.at):
        if (cause := _single(books, books.by_output.get(output.id))) is not None:
            came[("output", *output.at[:2], *cause[:2], books.landed[cause].key)].append(cause[2])
    place = {books.landed[at].what: at for at, entry in books.ran.items() if _single(books, entry) == at}
    for name, told in (("effect", books.seen.effects), ("call", [what for _, what in books.seen.calls or []])):
        for what in dict.fromkeys(told or []):
            if (at := place.get(what)) is not None:
                came[(name, *at[:2], books.landed[at].key)].append(at[2])
    for what, offsets in came.items():
        if what[-1] is not None and offsets != sorted(offsets):
            late = next(b for a, b in pairwise(offsets) if b < a)
            yield Anomaly("non-monotonic", f"{what}: {late} came late")


def _single(books: _Books, entry: Entry | None) -> Where | None:
    """The one record that a run of its first life came from; what is redriven, joined or told astray keeps no order."""
    if entry is None or entry.life or entry.joined or len(entry.triggers) != 1:
        return None
    landed = books.landed.get(entry.triggers[0])
    return landed.at if landed is not None and len(books.lanes[landed.id]) == 1 else None


def _offsets(books: _Books) -> Iterator[Anomaly]:
    """The group's offset lies inside the log, and SQL tells the same: no record stands between the two."""
    for where, committed in books.seen.committed.items():
        _, end = books.seen.ends.get(where, (committed, committed))
        if committed > end:
            yield Anomaly("inconsistent-offset", f"{where}: committed is {committed}, its end {end}")
        position = books.seen.positions.get(where)
        if position is None:
            continue
        low, high = sorted((position, committed))
        between = [o for o in range(low, high) if (*where, o) in books.landed]
        if between:
            yield Anomaly("inconsistent-offset", f"{where}: committed is {committed}, and {position} in SQL")


def _decided(books: _Books) -> Iterator[Anomaly]:
    """Nothing is left over that a reader may see later, or that only SQL knows."""
    for where, (stable, end) in books.seen.ends.items():
        if stable < end:
            yield Anomaly("unseen", f"{where}: stable up to {stable}, its end is {end}")
    for run in sorted(set(books.seen.unpublished)):
        yield Anomaly("unseen", f"run {run} is decided in SQL and not published")
    for row in books.seen.rows:
        if row.run not in books.runs:
            yield Anomaly("unseen", f"run {row.run} is {row.outcome} in SQL, and the ledger does not know it")


def _effects(books: _Books) -> Iterator[Anomaly]:
    for what, count in Counter(books.seen.effects or []).items():
        if count > 1:
            yield Anomaly("double-effect", f"{what!r} was done {count} times")
    calls = books.seen.calls or []
    if books.seen.effect in {"idempotent", "verify"}:
        for what, count in Counter(what for _, what in dict.fromkeys(calls)).items():
            if count > 1:
                yield Anomaly("double-effect", f"{what!r} was sent under {count} keys")
    if books.seen.effect in {"verify", "at_most_once"}:
        for (key, what), count in Counter(calls).items():
            if count > 1:
                yield Anomaly("double-effect", f"{what!r} was sent {count} times under {key}")


def _doubts(books: _Books) -> Iterator[Anomaly]:
    """Uncertain is only what may have happened: an effect at most once, of which a step stands as started."""
    for run, entry in books.final():
        if entry.state == "uncertain" and (books.seen.effect != "at_most_once" or run not in books.seen.doubted):
            yield Anomaly("uncertain-without-doubt", f"run {run}")


def _as_expected(books: _Books) -> Iterator[Anomaly]:
    """The known answer: what becomes of an event follows from its kind, and its output from its number."""
    stands = dict.fromkeys(books.of_filtered, "filtered")
    for _, entry in books.final():
        for at in _triggers(books, entry) if entry.state != "joined" else ():
            stands[books.landed[at].id] = entry.state
    for landed in {x.id: x for x in books.seen.landed}.values():
        allowed = books.seen.expected.get(landed.kind)
        state = stands.get(landed.id)
        if allowed is not None and state is not None and state not in allowed:
            yield Anomaly("wrong-outcome", f"{_place(landed)} is {state}, and should be {' or '.join(sorted(allowed))}")
    for output in books.seen.outputs:
        entry = books.by_output.get(output.id)
        asked = {books.landed[at].what for at in _triggers(books, entry)} if entry else set()
        if output.what is not None and asked and output.what not in asked:
            yield Anomaly("wrong-outcome", f"output {output.id} answers {output.what!r}, and was asked {asked}")


def _letters(books: _Books) -> Iterator[Anomaly]:
    for letter in books.seen.letters:
        landed = books.landed.get(letter.at)
        if landed is None:
            yield Anomaly("bytes-of-letters", f"a letter of run {letter.run} keeps {letter.at}, which never landed")
        elif letter.pointer:
            continue
        elif letter.key != landed.key or letter.headers != landed.headers:
            yield Anomaly("bytes-of-letters", f"key or headers of {_place(landed)} are other ones in its letter")
        elif letter.value != landed.value and not letter.edited:
            yield Anomaly("bytes-of-letters", f"the value of {_place(landed)} is another one in its letter")


def _place(landed: Landed) -> str:
    topic, partition, offset = landed.at
    return f"{landed.kind} event {landed.id} at {topic}[{partition}]@{offset}"


# ---- collecting it


class Telling(NamedTuple):
    """What a reader of the workload makes out of a record: which event, of which kind, and what it is about."""

    id: str
    kind: str
    what: Any


@dataclass
class Scene:
    """Where a pipeline is looked at: its servers, its names, and how its records are read."""

    bootstrap: str
    database: str
    group: str
    inputs: Mapping[str, Callable[[Message], Telling]]
    outputs: Mapping[str, Callable[[Message], Any]]
    properties: Mapping[str, Any] = field(default_factory=dict)


def collect(scene: Scene, **known: Any) -> History:
    """The history of a pipeline, from real servers; `known` are the fields that only the workload can tell."""
    history = History(**known)
    letters = f"dlq.{scene.group}"
    topics = [*scene.inputs, *scene.outputs, letters, LEDGER]
    history.ends = _wait_readable(scene, topics)
    found = read(scene, topics)
    for topic, tell in scene.inputs.items():
        history.landed += [_landed(message, tell) for message in found[topic]]
    for topic, tell in scene.outputs.items():
        history.outputs += [_output(message, tell) for message in found[topic]]
    for topic, messages in read(scene, list(scene.outputs), "read_uncommitted").items():
        history.written += [_output(message, scene.outputs[topic]) for message in messages]
    history.letters = [_letter(message) for message in found[letters]]
    history.ledger = list(_entries(scene, found[LEDGER]))
    _offsets_of(scene, history)
    _tables(scene, history)
    return history


def read(
    scene: Scene, topics: list[str], isolation: str = "read_committed", patience: float = 60
) -> dict[str, list[Message]]:
    """Every record of topics by a plain consumer, in the order of each partition, up to their ends of now."""
    consumer = Consumer({**_client(scene), "isolation.level": isolation})
    try:
        ends = {where: end for where, (_, end) in _ends(scene, topics).items()}
        consumer.assign([TopicPartition(*where, 0) for where in ends])
        records: dict[str, list[Message]] = {topic: [] for topic in topics}
        left, deadline = {where for where, end in ends.items() if end}, time.monotonic() + patience
        while left and time.monotonic() < deadline:  # what is undecided stays unread; the stable offsets tell
            for message in consumer.consume(500, 0.1):
                where = (message.topic(), message.partition())
                if not message.error():
                    records[where[0]].append(message)
                if message.offset() + (0 if message.error() else 1) >= ends[where]:
                    left.discard(where)
        return records
    finally:
        consumer.close()


def _client(scene: Scene) -> dict[str, Any]:
    return {
        "bootstrap.servers": scene.bootstrap,
        "group.id": f"checker-{uuid.uuid4().hex}",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "check.crcs": True,
        "log_level": 0,
        **scene.properties,
    }


def _ends(scene: Scene, topics: list[str]) -> dict[tuple[str, int], tuple[int, int]]:
    """By partition the stable offset and the end."""
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    for isolation in ("read_committed", "read_uncommitted"):
        consumer = Consumer({**_client(scene), "isolation.level": isolation})
        try:
            there = consumer.list_topics(timeout=20).topics
            for where in ((topic, partition) for topic in topics for partition in there[topic].partitions):
                asked = partial(consumer.get_watermark_offsets, TopicPartition(*where), 10)
                found[where].append(patiently(asked)[1])
        finally:
            consumer.close()
    return {where: (stable, end) for where, (stable, end) in found.items()}


_PASSES = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
}


def patiently(ask: Callable[[], Any], patience: float = 60) -> Any:
    """A broker that has just started does not know at once who leads and who coordinates."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _PASSES or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _wait_readable(scene: Scene, topics: list[str], patience: float = 40) -> dict[tuple[str, int], tuple[int, int]]:
    """Until each log is stable to its end: an open transaction of who was killed ends by its timeout."""
    deadline = time.monotonic() + patience
    ends = _ends(scene, topics)
    while any(stable < end for stable, end in ends.values()) and time.monotonic() < deadline:
        time.sleep(0.3)
        ends = _ends(scene, topics)
    return ends


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    return tuple(message.headers() or ())


def _at(message: Message) -> Where:
    return message.topic(), message.partition(), message.offset()


def _landed(message: Message, tell: Callable[[Message], Telling]) -> Landed:
    told = tell(message)
    return Landed(_at(message), *told[:1], message.key(), *told[1:], message.value(), _headers(message))


def _output(message: Message, tell: Callable[[Message], Any]) -> Output:
    return Output(_at(message), (dict(_headers(message)).get("ce_id") or b"").decode(), message.key(), tell(message))


def _letter(message: Message) -> Letter:
    own = {name: (value or b"").decode("utf-8", "replace") for name, value in _headers(message)}
    at = tuple(own.get(f"__dlq.errors.{name}", "-1") for name in ("topic", "partition", "offset"))
    kept = tuple(h for h in _headers(message) if not h[0].startswith(("__dlq.errors.", "farandole-dlq-")))
    return Letter(
        own.get("farandole-dlq-run-id", ""),
        (at[0], int(at[1]), int(at[2])),
        message.key(),
        message.value(),
        kept,
        int(own.get("farandole-dlq-life", "0")),
        "farandole-dlq-pointer" in own,
        "farandole-edited-from" in own,
    )


def _entries(scene: Scene, messages: list[Message]) -> Iterator[Entry]:
    schema, name = fastavro.parse_schema(LEDGER_SCHEMA), scene.group.encode()
    for message in messages:
        if not message.value() or name not in message.value():
            continue
        line = fastavro.schemaless_reader(BytesIO(message.value()[5:]), schema, schema)
        if line["pipeline"] != scene.group:
            continue
        span = line["span"]
        yield Entry(
            line["id"],
            line["state"] if line["kind"] == "run" else line["kind"],
            tuple((t["topic"], t["partition"], t["offset"]) for t in line["triggers"]),
            tuple(output["id"] for output in line["outputs"]),
            line["life"],
            _places(span, [o for many in span["filtered"].values() for o in many] if span else []),
            _places(span, span["duplicates"] if span else []),
            line["join_key"] is not None,
            line["fact"] or "",
        )


def _places(span: Any, offsets: list[int]) -> tuple[Where, ...]:
    return tuple((span["topic"], span["partition"], offset) for offset in offsets)


def _offsets_of(scene: Scene, history: History) -> None:
    consumer = Consumer({**_client(scene), "group.id": scene.group})
    try:
        asked = [TopicPartition(*where) for where in history.ends if where[0] in scene.inputs]
        for found in patiently(lambda: consumer.committed(asked, 10)):
            history.committed[(found.topic, found.partition)] = max(found.offset, 0)
    finally:
        consumer.close()


def _tables(scene: Scene, history: History) -> None:
    engine = sa.create_engine(scene.database)
    try:
        with engine.connect() as connection:
            rows = connection.execute(
                sa.text("select key, run_id, outcome from dedup where pipeline = :group"), {"group": scene.group}
            )
            history.rows = [Row(bytes(key), run, outcome) for key, run, outcome in rows]
            for topic, partition, offset in connection.execute(
                sa.text("select topic, partition, next_offset from position where pipeline = :group"),
                {"group": scene.group},
            ):
                if topic in scene.inputs and offset is not None:
                    history.positions[(topic, partition)] = offset
            asked = sa.text("select distinct run_id from outbox where pipeline = :group")
            history.unpublished = list(connection.scalars(asked, {"group": scene.group}))
            asked = sa.text("select run_id from checkpoint where pipeline = :group and state = 'started'")
            history.doubted = set(connection.scalars(asked, {"group": scene.group}))
    finally:
        engine.dispose()
