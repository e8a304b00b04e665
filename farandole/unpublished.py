"""What SQL decided and Kafka was not told: it goes out with the record that made it, when that comes again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from farandole.event import RawRecord
from farandole.kafka.codec import Codec
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.outcome import Books
from farandole.owned import Ended, Owned, Slot
from farandole.run import Run
from farandole.store.inbox import OutboxRow


@dataclass(slots=True)
class Unpublished:
    """The stored bytes of decided runs, by run id, and which of them are on their way."""

    books: Books
    codec: Codec
    stored: dict[str, list[OutboxRow]] = field(default_factory=dict)
    under_way: dict[str, Owned] = field(default_factory=dict)

    def publish_or_skip(self, slot: Slot, raw: RawRecord, run: str, rows: Sequence[OutboxRow], via: str) -> None:
        """Stored bytes go out with the record that made them, come again; a copy elsewhere leaves them to it."""
        if rows and run not in self.under_way and self._made(rows, raw, via):
            self.under_way[run] = slot.owned
            slot.owned.add(Ended([slot], [self.books.stored(row) for row in rows], published=[run], finished=[run]))
        else:
            slot.owned.end(slot, "duplicate")

    def publish_with_maker(self, run: Run) -> None:
        """Of a run that found its key decided when it claimed it every record is a duplicate; one may have made it."""
        settled, rows = run.known.run_id, run.stored
        self.publish_or_skip(run.slots[0], run.cause.raw, settled, rows, run.cause.via)
        for copy in run.copies:
            self.publish_or_skip(copy.slot, copy.raw, settled, rows, copy.come.via if copy.come else "")
        run.copies = []
        for slot in run.slots[1:]:
            slot.owned.end(slot, "duplicate")

    def settled(self, runs: Sequence[str]) -> None:
        """They were published, and SQL knows that."""
        for run in runs:
            self.under_way.pop(run, None)

    def drop(self, owned: Owned) -> None:
        """The partition is gone, and what was on its way by it: it goes out when its record comes again."""
        self.under_way = {run: by for run, by in self.under_way.items() if by is not owned}

    def _made(self, rows: Sequence[OutboxRow], raw: RawRecord, via: str) -> bool:
        line = next(row for row in rows if row.topic == LEDGER_TOPIC)
        entry = self.codec.decode(LEDGER_TOPIC, line.value, []) or {}
        if entry["via"] or via:
            return via in entry["via"]
        here = (raw.topic_id, raw.partition, raw.offset)
        return any((c["topic_id"], c["partition"], c["offset"]) == here for c in entry["triggers"])
