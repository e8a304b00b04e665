"""What the topics of the chain say, counted as it comes: every event by its id, every run by its entries."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from farandole.errors import FarandoleError, Undecodable
from farandole.event import RawRecord
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import Registry
from farandole.ledger.entry import LEDGER_TOPIC, ledger_schema
from farandole.settings import Settings

LANDED, STAGED, MERGED, REFRESHED = (
    "lake.file.landed.v1",
    "lake.table.staged.v1",
    "lake.table.merged.v1",
    "mart.delays.refreshed.v1",
)
SETTLED = ("done", "caught", "dead", "uncertain", "expired")
"""The states in which the ledger says that a run came to an end, well or not."""


@dataclass(slots=True)
class Told:
    """An event: the story it belongs to, and how many records carry its id."""

    story: str
    copies: int = 0


@dataclass(slots=True)
class Ended:
    """A run: its story, and how often the ledger says, in which state, that it ended."""

    pipeline: str
    story: str
    states: Counter[str] = field(default_factory=Counter)


class Tally:
    """Reads the chain's topics from their beginning, committed records only, and goes on until it is closed.

    A story is the id of the landing that everything began with. Nothing is written, and no group is joined.
    """

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Told]] = {topic: {} for topic in (LANDED, STAGED, MERGED, REFRESHED)}
        self.runs: dict[str, Ended] = {}
        self.waiting: dict[str, str] = {}
        """Halves of joins that wait for the other, each with its pipeline."""
        self.duplicates: Counter[str] = Counter()
        """Events that a pipeline took for what they were, by pipeline."""
        self.trouble: Exception | None = None
        """What ended the reading, if anything did."""
        self._stop = threading.Event()

    @contextmanager
    def following(self, settings: Settings) -> Iterator[None]:
        """Read what stands there now, then follow in the background for as long as the block lasts."""
        with closing(Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)) as registry:
            codec = Codec(registry, {LEDGER_TOPIC: ledger_schema()})
            takes: dict[str, Callable[[RawRecord], None]] = dict.fromkeys(self.events, self._event)
            takes[LEDGER_TOPIC] = lambda record: self._entry(record, codec)
            caught_up = threading.Barrier(len(takes) + 1)
            threads = [
                threading.Thread(target=self._read, args=(settings, topic, take, caught_up), name=f"tally-{topic}")
                for topic, take in takes.items()
            ]
            for thread in threads:
                thread.start()
            try:
                try:
                    caught_up.wait()
                except threading.BrokenBarrierError:
                    raise self.trouble or FarandoleError("the topics could not be read") from None
                yield
            finally:
                self._stop.set()
                caught_up.abort()
                for thread in threads:
                    thread.join()

    def told(self, topic: str, stories: Collection[str]) -> int:
        """How many different events of these stories stand in a topic."""
        return sum(event.story in stories for event in list(self.events[topic].values()))

    def ended(self, pipeline: str, stories: Collection[str]) -> int:
        """How many runs of a pipeline in these stories came to their end."""
        return sum(run.pipeline == pipeline and run.story in stories for run in list(self.runs.values()))

    def records(self, *topics: str) -> int:
        """How many records stand in these topics, by default in all of the chain's; copies and all."""
        return sum(event.copies for topic in topics or self.events for event in list(self.events[topic].values()))

    def _read(
        self, settings: Settings, topic: str, take: Callable[[RawRecord], None], caught_up: threading.Barrier
    ) -> None:
        try:
            with TopicReader(settings.bootstrap(), topic, settings.client_properties()) as reader:
                starts, ends = reader.starts(), reader.ends()
                for batch in reader.read(starts, until=ends):
                    for record in batch:
                        take(record)
                caught_up.wait()
                for batch in reader.read(ends, wait=0.2):
                    for record in batch:
                        take(record)
                    if self._stop.is_set():
                        return
        except threading.BrokenBarrierError:
            return
        except Exception as error:  # noqa: BLE001 - told by whoever waits for what we count
            self.trouble = error
            caught_up.abort()

    def _event(self, record: RawRecord) -> None:
        headers = dict(record.headers)
        identity = (headers.get("ce_id") or b"").decode()
        story = (headers.get("ce_correlationid") or b"").decode() or identity
        self.events[record.topic].setdefault(identity or str(record.position), Told(story)).copies += 1

    def _entry(self, record: RawRecord, codec: Codec) -> None:
        try:
            entry = codec.decode(LEDGER_TOPIC, record.value, record.headers)
        except Undecodable:
            return  # somebody else's record: the projector says so
        if entry is None:
            return
        if entry["kind"] == "range":
            self.duplicates[entry["pipeline"]] += len(entry["span"]["duplicates"])
        elif entry["kind"] == "run":
            self._run(entry)

    def _run(self, entry: Mapping[str, Any]) -> None:
        if entry["state"] == "waiting":
            self.waiting[entry["id"]] = entry["pipeline"]
        else:
            self.waiting.pop(entry["id"], None)
        if entry["state"] in SETTLED:
            run = self.runs.setdefault(entry["id"], Ended(entry["pipeline"], entry["correlation_id"]))
            run.states[entry["state"]] += 1
