"""The control topic as those see it who give commands: the command line, and tools that keep their progress there."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from farandole.control import Command
from farandole.errors import BrokerUnreachable, FarandoleError
from farandole.event import Record
from farandole.kafka.admin import Admin
from farandole.kafka.codec import Codec
from farandole.kafka.emitter import Emitter
from farandole.kafka.reader import TopicReader
from farandole.kafka.sink import Session, Spoiled
from farandole.topics import AUDIT, CONTROL


class Control:
    """Gives commands, keeps notes, reads both back. Needs a broker and the registry, nothing else of ours.

    Every call raises BrokerUnreachable or RegistryUnreachable where they do not answer, and FarandoleError where
    the topic is not there.
    """

    def __init__(self, bootstrap: str, codec: Codec, client_properties: Mapping[str, Any] | None = None) -> None:
        self._bootstrap, self._codec, self._properties = bootstrap, codec, dict(client_properties or {})
        self._emitter: Emitter | None = None

    def give(self, *commands: Command, beside: Sequence[Record] = ()) -> None:
        """Acts: they stand on the control topic and, in the same transaction, on the audit topic for good.

        `beside` goes with them, all or nothing: what an act says in the ledger.
        """
        self._there(CONTROL, AUDIT)
        records = [self._record(topic, command) for command in commands for topic in (CONTROL, AUDIT)] + [*beside]
        # an id of its own: two people who give commands at the same time must not fence each other
        mine = {**self._properties, "bootstrap.servers": self._bootstrap}
        session = Session(f"farandole-control-{uuid.uuid4().hex}", mine)
        try:
            session.open()
            session.publish(records, None, None, CONTROL)
        except Spoiled as lost:
            raise BrokerUnreachable(
                f"nobody knows whether the command was taken: {lost.message}",
                place=f"kafka {self._bootstrap}",
                hint="give it again: a command that is given twice does no more than once",
            ) from lost
        finally:
            session.drop()

    def save(self, *notes: Command) -> None:
        """Keep notes of a tool (a plan, its progress) on the control topic alone; acknowledged when it returns."""
        self._there(CONTROL)
        self._send(self._record(CONTROL, note) for note in notes)

    def forget(self, ids: Iterable[str]) -> None:
        """Take commands or notes off the topic, by tombstones."""
        self._there(CONTROL)
        self._send(Record(CONTROL, one.encode(), None, []) for one in ids)

    def load(self, prefix: str) -> dict[str, Command]:
        """What stands on the control topic under ids that begin so, by id, the oldest first."""
        found: dict[str, Command] = {}
        with TopicReader(self._bootstrap, CONTROL, self._properties) as reader:
            # to the end as it is now, open transactions waited for
            for batch in reader.read(reader.starts(), until=reader.undecided_ends()):
                for raw in batch:
                    one = (raw.key or b"").decode(errors="replace")
                    if one.startswith(prefix):
                        found.pop(one, None)
                        if (told := self._codec.decode(CONTROL, raw.value, raw.headers)) is not None:
                            found[one] = Command.of(told)
        return found

    def _send(self, records: Iterable[Record]) -> None:
        if self._emitter is None:
            self._emitter = Emitter(self._bootstrap, self._properties)
        self._emitter.send(records)

    def _record(self, topic: str, command: Command) -> Record:
        return Record(topic, command.key, self._codec.encode(topic, command.record()), [])

    def _there(self, *topics: str) -> None:
        found = Admin(self._bootstrap, self._properties).topics(topics)
        if missing := [topic for topic in topics if topic not in found]:
            raise FarandoleError(
                f"there is no topic for commands here: {', '.join(missing)}",
                place=f"kafka {self._bootstrap}",
                hint="create it: farandole topology apply",
            )


def audited(
    reader: Callable[[str], TopicReader], codec: Codec, *, pipeline: str, since: datetime | None, limit: int
) -> list[Command]:
    """The newest commands that were ever given, the newest first; of one pipeline, unless `pipeline` is empty.

    Raises FarandoleError where there is no audit topic.
    """
    newest: dict[tuple[str, str, int], Command] = {}
    with reader(AUDIT) as opened:
        starts = opened.offsets_at(round(since.timestamp() * 1000)) if since else opened.starts()
        for batch in opened.read(starts, until=opened.undecided_ends()):
            for raw in batch:
                told = codec.decode(AUDIT, raw.value, raw.headers)
                if told is None or pipeline not in ("", told["pipeline"]):
                    continue
                command = Command.of(told)
                newest[command.id, command.kind, command.at] = command  # given twice, where nobody knew how it ended
                if len(newest) > limit:
                    del newest[next(iter(newest))]
    return list(reversed(newest.values()))
