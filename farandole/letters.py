"""Dead letters where they stand, and the ledger that says what became of them: the reading side of a redrive.

Reads topics directly, so that it works with every other part of the platform stopped.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

from farandole.clock import SystemClock
from farandole.deadletter import DeadLetter
from farandole.declaration import Declaration
from farandole.errors import FarandoleError, Undecodable
from farandole.event import Event, RawRecord, envelope_of
from farandole.ids import dead_letter_id, digest, event_key, position_key, run_id
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.ledger.entry import Entry, ledger_partition, outranks
from farandole.match import Matcher
from farandole.selection import Place, Standing

MARGIN = 3_600_000
"""Milliseconds before the oldest letter from which its ledger entry is looked for: brokers' clocks differ."""

Reading = Callable[[str], TopicReader]
"""Opens a reader of a topic; the caller's to close."""


class Letters:
    """The letters of one pipeline in one topic; those of other writers are taken in as if the pipeline had given up."""

    def __init__(self, reader: TopicReader, adopt: Callable[[DeadLetter], DeadLetter]) -> None:
        self._reader, self._adopt = reader, adopt
        self.topic = reader.topic

    def every(self, since: int = 0, until: int = 0, *, whole: bool = False) -> Iterator[list[DeadLetter]]:
        """All letters that were written in a span of time (milliseconds since 1970), as they come.

        Without their bytes, headers and stack trace if not `whole`: then it does not matter how many are kept.
        """
        starts = self._reader.offsets_at(since) if since else self._reader.starts()
        ends = self._reader.ends()
        if until:
            ends = {p: min(end, ends[p]) for p, end in self._reader.offsets_at(until).items()}
        for batch in self._reader.read(starts, until=ends):
            letters = [self._adopt(DeadLetter.of(raw)) for raw in batch]
            yield letters if whole else [_light(letter) for letter in letters]

    def last(self, count: int) -> list[DeadLetter]:
        """The newest, oldest of them first."""
        return [self._adopt(DeadLetter.of(raw)) for raw in self._reader.last(count)]

    def at(self, places: Collection[Place], *, whole: bool = True) -> dict[Place, DeadLetter]:
        """The letters at these places, as far as they still stand; without their bytes if not `whole`."""
        first: dict[int, int] = {}
        end: dict[int, int] = {}
        for partition, offset in places:
            first[partition] = min(offset, first.get(partition, offset))
            end[partition] = max(offset + 1, end.get(partition, 0))
        wanted = set(places)
        found = {}
        for batch in self._reader.read(first, until=end) if first else ():
            for raw in batch:
                if (raw.partition, raw.offset) in wanted:
                    letter = self._adopt(DeadLetter.of(raw))
                    found[raw.partition, raw.offset] = letter if whole else _light(letter)
        return found


def _light(letter: DeadLetter) -> DeadLetter:
    raw = letter.raw
    alone = RawRecord(raw.topic, raw.topic_id, raw.partition, raw.offset, raw.timestamp, raw.key)
    return replace(letter, raw=alone, stacktrace="")


class Adoption:
    """Gives a letter that another tool wrote the key and the run that its event would have here.

    The key is what the pipeline's declaration says (`declared`), else the event's id, else its position.
    """

    def __init__(
        self,
        pipeline: str,
        topic_ids: Callable[[Collection[str]], Mapping[str, str]],
        declared: Callable[[RawRecord], bytes | None],
    ) -> None:
        self._pipeline, self._ask, self._declared = pipeline, topic_ids, declared
        self._ids: dict[str, str] = {}

    def __call__(self, letter: DeadLetter) -> DeadLetter:
        """The same letter, or one that can be redriven; without a run where nothing says where its event stood."""
        if not self._pipeline or (letter.run_id and letter.key):
            return letter
        if not (topic_id := letter.topic_id or self._topic_id(letter.topic)):
            return letter
        at = (topic_id, letter.partition, letter.offset)
        if letter.offset < 0:  # its writer did not say: where the letter stands is a position as unique
            at = (letter.raw.topic_id, letter.raw.partition, letter.raw.offset)
        letter = replace(letter, topic_id=at[0], partition=at[1], offset=at[2])
        key = letter.key or self._declared(letter.event()) or own_key(letter.event())
        run = letter.run_id or run_id(self._pipeline, 0, [key])
        identity = dead_letter_id(run, letter.life, letter.part)
        return replace(letter, group=self._pipeline, key=key, run_id=run, id=identity)

    def _topic_id(self, topic: str) -> str:
        if topic not in self._ids:
            self._ids[topic] = self._ask([topic]).get(topic, "") if topic else ""
        return self._ids[topic]


def own_key(event: RawRecord) -> bytes:
    """The key of an event for a pipeline that declares none: its own id, or where it stands."""
    envelope = envelope_of(event.headers, event.topic, event.position)
    if envelope.derived:
        return position_key(event.topic_id, event.partition, event.offset)
    return event_key(envelope.source, envelope.id)


class DeclaredKeys:
    """The keys of a pipeline that declares their fields (`once`): what its service would compute for an event."""

    def __init__(self, find: Callable[[], tuple[Declaration, Codec] | None]) -> None:
        self._find = find

    @cached_property
    def _matcher(self) -> tuple[Matcher, Codec] | None:
        found = self._find()
        return (Matcher(found[0]), found[1]) if found is not None and found[0].once else None

    def __call__(self, event: RawRecord) -> bytes | None:
        """The key; None where the pipeline is not at hand or takes the event's own id."""
        if self._matcher is None:
            return None
        matcher, codec = self._matcher
        try:
            value = codec.decode(event.topic, event.value, event.headers)
            envelope = envelope_of(event.headers, event.topic, event.position)
            return matcher.key(Event(envelope, event.position, value or {}, event.key, event.value))
        except (Undecodable, KeyError, TypeError):
            return position_key(event.topic_id, event.partition, event.offset)  # as the service itself does


def pointed(read: Reading, letter: DeadLetter) -> RawRecord:
    """The event that a pointer letter stands for. Raises FarandoleError where it is gone, or another stands there."""
    told = dict(letter.raw.headers).get("farandole-dlq-digest") or b""
    with read(letter.topic) as reader:
        raw = reader.at(letter.partition, letter.offset)
    if digest(raw.value).hex().encode() != told:
        raise FarandoleError(
            "another record stands there now: the topic was created anew",
            place=f"{letter.topic}[{letter.partition}]@{letter.offset}",
            hint="nothing brings this event back: farandole dlq resolve",
        )
    return raw


class Ledger:
    """Where runs of one pipeline stand, read from the ledger topic itself and followed from there.

    Only the entries of the runs that are asked for are decoded; with `history` all of them are kept.
    """

    def __init__(self, reader: TopicReader, codec: Codec, pipeline: str, *, history: bool = False) -> None:
        self._reader, self._codec, self._clock = reader, codec, SystemClock()
        self._partition = ledger_partition(pipeline, reader.describe().partitions)
        self._runs: frozenset[bytes] = frozenset()
        self._history = history
        self._ahead: Iterator[list[RawRecord]] | None = None
        self.standing: dict[str, Standing] = {}
        self.entries: list[tuple[int, Entry]] = []
        """With `history`: every entry with the broker's time of it (milliseconds since 1970)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ahead = None
        self._reader.close()

    def read(self, runs: Iterable[str], since: int = 0) -> dict[str, Standing]:
        """Up to the end as it is now. `since`: when the oldest of their letters was written."""
        self._runs = frozenset(run.encode() for run in runs)
        starts = self._reader.offsets_at(max(0, since - MARGIN)) if since else self._reader.starts()
        end = self._reader.undecided_ends()[self._partition]
        at = starts[self._partition]
        for batch in self._reader.read({self._partition: at}, until={self._partition: end}):
            self._take(batch)
        self._ahead = self._reader.read({self._partition: max(at, end)}, wait=0.05)
        return self.standing

    def listen(self, seconds: float) -> set[str]:
        """What comes in so long a time; the runs it was about. After :meth:`read`."""
        assert self._ahead is not None  # noqa: S101 - the caller has read first
        end, heard = self._clock.monotonic() + seconds, set[str]()
        while True:
            heard |= self._take(next(self._ahead))
            if self._clock.monotonic() >= end:
                return heard

    def _take(self, batch: Sequence[RawRecord]) -> set[str]:
        heard = set()
        for raw in batch:
            if raw.key not in self._runs or raw.value is None:
                continue
            entry = Entry.of(self._codec.decode(raw.topic, raw.value, raw.headers) or {})
            if self._history:
                self.entries.append((raw.timestamp, entry))
            there = self.standing.get(entry.id)
            if there is None or outranks((entry.life, entry.state), there):
                self.standing[entry.id] = Standing(entry.life, entry.state)
                heard.add(entry.id)
        return heard


def exported(raw: RawRecord) -> dict[str, Any]:
    """A record of a dead-letter topic as JSON, whole: bytes are base64. :func:`imported` reads it back."""
    return {
        "topic": raw.topic,
        "topic_id": raw.topic_id,
        "partition": raw.partition,
        "offset": raw.offset,
        "timestamp": raw.timestamp,
        "key": _base64(raw.key),
        "value": _base64(raw.value),
        "headers": [[name, _base64(value)] for name, value in raw.headers],
    }


def imported(told: Mapping[str, Any]) -> RawRecord:
    """The record that was exported. Raises KeyError, TypeError or ValueError for anything else."""
    return RawRecord(
        told["topic"],
        told["topic_id"],
        told["partition"],
        told["offset"],
        told["timestamp"],
        _bytes_of(told["key"]),
        _bytes_of(told["value"]),
        [(name, _bytes_of(value)) for name, value in told["headers"]],
    )


def _base64(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


def _bytes_of(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text, validate=True)
