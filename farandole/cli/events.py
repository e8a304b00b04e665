"""`farandole events emit|tail|show`: events to a topic, and what stands in one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from farandole.cli.answer import emit_one, local, tell
from farandole.cli.output import emit, output_option
from farandole.cli.records import Clients, answer, clients, headers
from farandole.errors import FINE, FarandoleError

if TYPE_CHECKING:
    from farandole.event import RawRecord, Record
    from farandole.kafka.codec import Codec
    from farandole.kafka.reader import TopicReader

SOURCE = "/farandole/cli"
"""The `ce_source` of events that are emitted by hand."""


@click.group()
def events() -> None:
    """Events: emit them by hand, follow a topic, look at one."""


@events.command("emit")
@click.argument("topic")
@click.option("--json", "text", metavar="JSON", help="The event, as a JSON object.")
@click.option("--file", "path", metavar="FILE", help="A file with one JSON object a line; - is standard input.")
@click.option("--id", "event_id", default="", help="Its id; told again with the same id it is a duplicate.")
@click.option("--key", default=None, help="The record key, if not the one that the event type declares.")
@click.option("--source", default=SOURCE, show_default=True, help="Who says it; with the id it is the dedup key.")
@output_option
def emit_events(
    topic: str, text: str | None, path: str | None, event_id: str, key: str | None, source: str, output: str | None
) -> int:
    """Emit one event, or a file of them, in Avro by the schema of the topic.

    Times are RFC 3339, bytes are hex, fields with a default may be left out. An event without an id gets
    a UUIDv7. Of a file, either every line can be encoded or nothing is sent.

    \b
    Examples:
      farandole events emit lake.file.landed.v1 --json '{"uri": "raw/a.csv", "source": "erp", …}'
      farandole events emit lake.file.landed.v1 --file landed.jsonl
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.kafka.emitter import Emitter

    if (text is None) == (path is None):
        raise click.UsageError("give the event with --json, or a file of events with --file")
    if path is not None and event_id:
        raise click.UsageError("--id names one event; the events of a file get an id each")
    given = [("--json", text)] if text is not None else _lines(str(path))
    with clients() as c:
        with c.reader(topic) as reader:
            reader.describe()  # says that there is no such topic, at once
        maker = _Maker(topic, c, event_id, key, source)
        records = [maker.record(value, place) for place, value in given]
        placed = Emitter(c.settings.bootstrap(), c.settings.client_properties()).send(records)
    rows = (
        {**where._asdict(), "id": identity, "key": record.key}
        for where, identity, record in zip(placed, maker.ids, records, strict=True)
    )
    emit(({**row, "key": _text(row["key"])} for row in rows), output, empty="nothing to emit")
    return FINE


@events.command()
@click.argument("topic")
@click.option("-n", "number", default=None, type=click.IntRange(1), help="At most so many; by default the last 10.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("--from-beginning", is_flag=True, help="From the first event that the topic still holds.")
@output_option
def tail(topic: str, number: int | None, follow: bool, from_beginning: bool, output: str | None) -> int:
    """The newest events of a topic, decoded, oldest of them first. Only what is committed.

    \b
    Examples:
      farandole events tail lake.table.merged.v1 -n 3
      farandole events tail lake.table.merged.v1 --follow | jq .value
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    with clients() as c, c.reader(topic) as reader:
        rows = (answer(raw, c.codec) for raw in _tailed(reader, number, follow=follow, from_beginning=from_beginning))
        if output is None and sys.stdout.isatty():
            shown = 0
            for shown, row in enumerate(rows, 1):  # noqa: B007 - the count is needed after the loop
                click.echo(_line(row))
            if not shown:
                tell(f"nothing stands in {topic}")
        else:
            columns = ["partition", "offset", "timestamp", "key", "id", "value"]
            emit(rows, output, columns=columns, empty=f"nothing stands in {topic}")
    return FINE


@events.command()
@click.argument("topic")
@click.argument("which", metavar="PARTITION:OFFSET|ID")
@output_option
def show(topic: str, which: str, output: str | None) -> int:
    """One event whole: envelope, decoded value, headers, position.

    By id it is found through the projection, else by reading the topic.
    """
    with clients() as c, c.reader(topic) as reader:
        raw = _found(reader, topic, which)
        shown = {**answer(raw, c.codec), "topic_id": raw.topic_id, "headers": headers(raw)}
    if not emit_one(shown, output):
        click.echo(_line(shown))
        for header in shown["headers"]:
            click.echo(f"  {header['name']}: {header['value']}")
        click.echo(pretty(shown["value"]) if "undecodable" not in shown else f"  raw {shown['raw']}")
    return FINE


class _Schema(NamedTuple):
    schema: dict[str, Any]
    key: tuple[str, ...]


class _Maker:
    """Makes records of one topic from JSON; remembers the ids that it gave."""

    def __init__(self, topic: str, c: Clients, event_id: str, key: str | None, source: str) -> None:
        from farandole.clock import SystemClock
        from farandole.kafka.codec import Codec

        self._topic, self._id, self._key, self._source = topic, event_id, key, source
        self._schema = _schema(topic, c)
        self._codec: Codec = Codec(c.registry, {topic: self._schema.schema})
        self._clock = SystemClock()
        self.ids: list[str] = []

    def record(self, text: str, place: str) -> Record:
        from farandole.clock import iso
        from farandole.event import Envelope, Record
        from farandole.kafka.emitter import fresh_id
        from farandole.plain import from_plain

        try:
            typed = json.loads(text)
        except ValueError as error:
            raise FarandoleError(f"this is no JSON: {error}", place=place, hint="nothing was sent") from None
        if not isinstance(typed, dict):
            raise FarandoleError("an event is a JSON object", place=place, hint="nothing was sent")
        value = from_plain(self._schema.schema, typed, place)
        try:
            encoded = self._codec.encode(self._topic, value)
        except FarandoleError as error:
            error.place = f"{place} for {error.place}"
            raise
        key = self._key.encode() if self._key is not None else self._derived_key(value)
        identity = self._id or fresh_id(self._clock)
        self.ids.append(identity)
        envelope = Envelope(identity, self._source, self._topic, iso(self._clock.now()), correlation_id=identity)
        envelope.subject = _text(key) or ""
        return Record(self._topic, key, encoded, list(envelope.headers()))

    def _derived_key(self, value: dict[str, Any]) -> bytes | None:
        from farandole.event import record_key

        defaults = {field["name"]: field["default"] for field in self._schema.schema["fields"] if "default" in field}
        return record_key(self._schema.key, {**defaults, **value})


def _schema(topic: str, c: Clients) -> _Schema:
    """The schema of the repository where there is one: it names the key. Else what the registry holds."""
    own = Path("schemas/avro") / f"{topic}.avsc"
    text = own.read_text(encoding="utf-8") if own.exists() else c.registry.latest(f"{topic}-value")[1]
    schema = json.loads(text)
    return _Schema(schema, tuple(schema.get("key", ())))


def _lines(path: str) -> Iterator[tuple[str, str]]:
    try:
        with click.open_file(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", line
    except OSError as error:
        raise FarandoleError(
            f"cannot be read: {error.strerror}", place=path, hint="name a file of JSON lines"
        ) from error


def _tailed(reader: TopicReader, number: int | None, *, follow: bool, from_beginning: bool) -> Iterator[RawRecord]:
    ends = reader.ends()
    left = number
    if from_beginning:
        for raw in _flat(reader.read(reader.starts(), until=ends)):
            if left == 0:
                return
            yield raw
            left = None if left is None else left - 1
    else:
        yield from reader.last(number or 10, ends)
    if follow:
        yield from _flat(reader.read(ends))


def _flat(batches: Iterable[list[RawRecord]]) -> Iterator[RawRecord]:
    return (raw for batch in batches for raw in batch)


def _found(reader: TopicReader, topic: str, which: str) -> RawRecord:
    partition, colon, offset = which.partition(":")
    if colon and partition.removeprefix("p").isdigit() and offset.isdigit():
        return reader.at(int(partition.removeprefix("p")), int(offset))
    known = _known(topic, which)
    if known is not None:
        return reader.at(*known)
    starts, ends = reader.starts(), reader.ends()
    tell(f"not in the projection; looking through {sum(ends.values()) - sum(starts.values())} offsets of {topic}")
    wanted = which.encode()
    for raw in _flat(reader.read(starts, until=ends)):
        if any(name == "ce_id" and value == wanted for name, value in raw.headers):
            return raw
    raise FarandoleError(
        f"no event {which!r} stands in {topic}",
        place=topic,
        hint="an event without an id of its own is shown by PARTITION:OFFSET; retention may have passed it",
    )


def _known(topic: str, event_id: str) -> tuple[int, int] | None:
    from farandole.ledger.database import read_projection
    from farandole.ledger.queries import position_of
    from farandole.settings import load_settings

    try:
        database = read_projection(load_settings().database("projector"))
    except FarandoleError:
        return None  # the topic itself knows too, only slower
    try:
        with database.reading() as conn:
            return position_of(conn, topic, event_id)
    finally:
        database.close()


def _line(row: dict[str, Any]) -> str:
    what = f"✕ {row['undecodable']}" if "undecodable" in row else _json(row["value"])
    return f"p{row['partition']}:{row['offset']}  {local(row['timestamp'])}  {row['key'] or '-'}  {row['id']}  {what}"


def _json(value: Any, indent: int | None = None) -> str:
    from farandole.cli.output import plain

    return json.dumps(value, default=plain, ensure_ascii=False, indent=indent)


def pretty(value: Any) -> str:
    """A decoded value over several lines."""
    return _json(value, indent=2)


def _text(key: bytes | None) -> str | None:
    from farandole.cli.records import text

    return text(key)
