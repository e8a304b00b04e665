"""The expectations topic, folded: how every expectation stands, for whoever asks and whoever writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from farandole.event import RawRecord, Record
from farandole.expectation import Expectation, merged
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.topics import EXPECTATIONS


class Fresh(Protocol):
    """What is new in a topic since it was asked last."""

    def fresh(self) -> list[RawRecord]:
        """The records up to the end of the topic as it is now."""
        ...

    def rewind(self, milliseconds: int) -> None:
        """Go back to a time (milliseconds since 1970), where it stands later than that."""
        ...


class Tail:
    """A topic, or some of its partitions, read on from where it stood; from its end, until it is rewound.

    With `undecided` it waits for transactions that are open, so that what was acknowledged just now is there.
    """

    def __init__(self, reader: TopicReader, partitions: Sequence[int] = (), *, undecided: bool = False) -> None:
        self._reader, self._only = reader, set(partitions)
        self._ends = reader.undecided_ends if undecided else reader.ends
        self._offsets: dict[int, int] | None = None

    def fresh(self) -> list[RawRecord]:
        """The records up to the end of the topic as it is now. Raises BrokerUnreachable."""
        ends = self._mine(self._ends())
        if self._offsets is None:
            self._offsets = ends
        found = [record for batch in self._reader.read(self._offsets, until=ends) for record in batch]
        self._offsets = {p: max(end, self._offsets[p]) for p, end in ends.items()}
        return found

    def rewind(self, milliseconds: int) -> None:
        """Go back to a time, where it stands later than that. Raises BrokerUnreachable."""
        then = self._mine(self._reader.offsets_at(milliseconds))
        self._offsets = {p: min(at, (self._offsets or then)[p]) for p, at in then.items()}

    def _mine(self, offsets: dict[int, int]) -> dict[int, int]:
        return {p: at for p, at in offsets.items() if not self._only or p in self._only}


class Standing:
    """The rows of the topic by id, as they stand. The reader stays the caller's to close."""

    def __init__(self, tail: Fresh, codec: Codec) -> None:
        self._tail, self._codec = tail, codec
        self.rows: dict[str, Expectation] = {}
        self.crooked: set[str] = set()
        """Ids whose newest record says less than what stands: compaction would forget the rest."""
        tail.rewind(0)

    def read(self) -> dict[str, int]:
        """Read on to the end; the ids of which there was news, each with the offset of its newest record.

        Raises BrokerUnreachable, RegistryUnreachable.
        """
        news: dict[str, int] = {}
        for record in self._tail.fresh():
            key = (record.key or b"").decode("utf-8", "replace")
            news[key] = record.offset
            told = self._codec.decode(EXPECTATIONS, record.value, record.headers)
            if told is None:
                self.rows.pop(key, None)
                self.crooked.discard(key)
                continue
            later = Expectation.of(told)
            stands = self.rows[key] = merged(self.rows.get(key), later)
            (self.crooked.add if stands != later else self.crooked.discard)(key)
        return news


class Expectations(Standing):
    """The same, to write too. What is written is known once it has been read back: the topic has the order."""

    def __init__(self, tail: Fresh, codec: Codec, send: Callable[[Sequence[Record]], object]) -> None:
        super().__init__(tail, codec)
        self._send = send

    def write(self, rows: Iterable[Expectation]) -> None:
        """Put rows on the topic; acknowledged when it returns."""
        self._send([Record(EXPECTATIONS, r.key, self._codec.encode(EXPECTATIONS, r.record()), []) for r in rows])

    def forget(self, ids: Iterable[str]) -> None:
        """Take rows off the topic, by tombstones."""
        self._send([Record(EXPECTATIONS, one.encode(), None, []) for one in ids])
