"""The topic of beats, folded: the last beat of each instance, and what time it is for the broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farandole.beat import Beat
from farandole.clock import Clock
from farandole.errors import FarandoleError, Unreachable
from farandole.event import Record
from farandole.kafka.codec import Codec
from farandole.kafka.expectations import Fresh
from farandole.topics import BEATS

Send = Callable[[Sequence[Record]], object]


class Beats:
    """Reads beats, and writes one's own. The reader behind `tail` stays the caller's to close.

    `now` is the time of the newest beat plus what has passed here since it was read: with nobody left that beats, time
    goes on all the same.
    """

    def __init__(self, tail: Fresh, codec: Codec, clock: Clock) -> None:
        self._tail, self._codec, self._clock = tail, codec, clock
        self._newest, self._heard = 0, clock.monotonic()
        self._begun = False
        self.last: dict[bytes, Beat] = {}

    def read(self) -> list[Beat]:
        """The last beat of each instance. Raises FarandoleError where brokers or registry are away, or the topic is."""
        if not self._begun:
            self._tail.rewind(0)
            self._begun = True
        for record in self._tail.fresh():
            told = self._codec.decode(BEATS, record.value, record.headers)
            if told is None:
                self.last.pop(record.key or b"", None)
                continue
            beat = Beat.of(told, record.timestamp)
            self.last[beat.key] = beat
            if beat.at > self._newest:
                self._newest, self._heard = beat.at, self._clock.monotonic()
        return list(self.last.values())

    @property
    def now(self) -> int:
        """Milliseconds since 1970, by the broker's clock, as far as it is known here."""
        return self._newest + round((self._clock.monotonic() - self._heard) * 1000)

    def record(self, beat: Beat) -> Record:
        """A beat as it goes to the topic."""
        return Record(BEATS, beat.key, self._codec.encode(BEATS, beat.record()), [])


class Overheard:
    """Beats for those who only listen. A cluster whose topics are older than this one has none."""

    def __init__(self, book: Beats) -> None:
        self._book = book

    def read(self) -> tuple[list[Beat], int]:
        """The last beat of each instance, and the broker's time. Raises Unreachable."""
        try:
            return self._book.read(), self._book.now
        except Unreachable:
            raise
        except FarandoleError:
            return [], self._book.now
