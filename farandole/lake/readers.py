"""Files of any declared source, read as streams of record batches: CSV, JSON lines, change data capture.

Each reader yields ``(table, batch, numbers of its rows)`` and holds a batch at a time. JSON is read with
msgspec, whose errors name line and field; Arrow's JSON reader crashes the process on a line ``null``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.csv as pacsv

from farandole.lake.outcome import BadRows
from farandole.lake.rows import BATCH, Findings, arrow_schema, arrow_type, typed
from farandole.sources.metadata import Column, Source

Read = Iterator[tuple[str, pa.RecordBatch, Sequence[int]]]
_JSON = {"int": int, "float": float, "string": str, "bool": bool, "date": date, "timestamp": datetime}
_OPERATIONS = {"c": "u", "r": "u", "u": "u", "d": "d"}


def read(source: Source, handle: IO[bytes], findings: Findings) -> Read:
    """The rows of an open file, table by table. Raises BadRows where the file as a whole cannot be read."""
    if source.format == "csv":
        yield from _csv(source, handle, findings)
    elif source.format == "jsonl":
        yield from _json_lines(source, handle, findings)
    elif source.format == "debezium":
        yield from _debezium(source, handle, findings)
    else:
        from farandole.lake.markup import read_markup

        yield from read_markup(source, handle, findings)


def _csv(source: Source, handle: IO[bytes], findings: Findings) -> Read:
    row = 1
    try:
        for batch in _csv_batches(source, handle, as_text=False):
            yield source.table, batch, range(row, row + len(batch))
            row += len(batch)
    except pa.ArrowKeyError as error:
        raise BadRows(f"the header lacks a declared column: {error.args[0]}") from error
    except pa.ArrowInvalid as error:
        # Arrow's stream does not say which row: read the file again as text and look
        handle.seek(0)
        row = 1
        try:
            for batch in _csv_batches(source, handle, as_text=True):
                typed(batch, source, range(row, row + len(batch)), findings)
                row += len(batch)
        except pa.ArrowInvalid as broken:
            findings.add(0, "", f"after row {row - 1}: {broken}")
        if not findings.first:
            findings.add(0, "", str(error))


def _csv_batches(source: Source, handle: IO[bytes], *, as_text: bool) -> Iterator[pa.RecordBatch]:
    headers = {column.path or name: name for name, column in source.columns.items()}
    types = {h: pa.string() if as_text else arrow_type(source.columns[n].type) for h, n in headers.items()}
    reader = pacsv.open_csv(
        handle,
        read_options=pacsv.ReadOptions(block_size=4 << 20, use_threads=False),
        parse_options=pacsv.ParseOptions(delimiter=source.delimiter, newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            include_columns=list(headers), column_types=types, null_values=list(source.nulls), strings_can_be_null=True
        ),
    )
    for batch in reader:
        yield batch.rename_columns([headers[h] for h in batch.schema.names])


def _json_lines(source: Source, handle: IO[bytes], findings: Findings) -> Read:
    schema = arrow_schema(source)
    record = _nested({name: column.path or name for name, column in source.columns.items()}, source.columns)
    paths = [(column.path or name).split(".") for name, column in source.columns.items()]
    for numbers, many in _decoded(handle, msgspec.json.Decoder(record), findings):
        rows = [[_reach(one, path) for path in paths] for one in many]
        yield source.table, _batch(rows, schema, numbers, findings), numbers


def _debezium(source: Source, handle: IO[bytes], findings: Findings) -> Read:
    """Debezium's envelope: the row after the change, or the row before it for a delete, with its place in the log."""
    image = _nested({name: column.path or name for name, column in source.columns.items()}, source.columns)
    origin = msgspec.defstruct("source", [("ts_ms", int | None, None), ("lsn", int | None, None)])
    envelope = msgspec.defstruct(
        "change",
        [
            ("op", str),
            ("ts_ms", int | None, None),
            ("source", origin | None, None),
            ("before", image | None, None),
            ("after", image | None, None),
        ],
    )
    schema = arrow_schema(source)
    for name, kind in (("_op", pa.string()), ("_changed_at", pa.int64()), ("_lsn", pa.int64())):
        schema = schema.append(pa.field(name, kind))
    paths = [(column.path or name).split(".") for name, column in source.columns.items()]
    for numbers, many in _decoded(handle, msgspec.json.Decoder(envelope), findings):
        rows, kept = [], []
        for number, change in zip(numbers, many, strict=True):
            operation = _OPERATIONS.get(change.op)
            state = change.before if operation == "d" else change.after
            if operation is None or state is None:
                why = f"{change.op!r} is none of c, r, u, d" if operation is None else "the image of the row is missing"
                findings.add(number, "op", why)
                continue
            at = (change.source and change.source.ts_ms) or change.ts_ms or 0
            lsn = (change.source and change.source.lsn) or 0
            rows.append([*(_reach(state, path) for path in paths), operation, at, lsn])
            kept.append(number)
        yield source.table, _batch(rows, schema, kept, findings), kept


def _decoded(handle: IO[bytes], decoder: Any, findings: Findings) -> Iterator[tuple[list[int], list[Any]]]:
    """Batches of decoded lines with their numbers; a line that is wrong is a finding, an empty one is nothing."""
    lines = enumerate(handle, 1)
    while some := list(islice(lines, BATCH)):
        numbers, good = [], []
        for number, line in some:
            if not line.strip():
                continue
            try:
                good.append(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:  # ValidationError is a DecodeError
                findings.add(number, "line", str(error))
            else:
                numbers.append(number)
        yield numbers, good


def _nested(paths: dict[str, str], columns: dict[str, Column]) -> Any:
    """A msgspec type that takes the dotted paths, leaves the rest of the line unread, and lets each be missing."""
    tree: dict[str, Any] = {}
    for name, path in paths.items():
        *above, leaf = path.split(".")
        at = tree
        for part in above:
            at = at.setdefault(part, {})
        at[leaf] = _JSON.get(columns[name].type, Decimal)
    return _struct(tree)


def _struct(tree: dict[str, Any]) -> Any:
    fields: list[tuple[str, Any, Any]] = []
    rename: dict[str, str] = {}
    for index, (name, kind) in enumerate(tree.items()):
        field = f"f{index}"  # a JSON name need not be a Python name
        rename[field] = name
        fields.append((field, (_struct(kind) if isinstance(kind, dict) else kind) | None, None))
    made = msgspec.defstruct("record", fields, rename=rename)
    made.__paths__ = {name: field for field, name in rename.items()}  # type: ignore[attr-defined]
    return made


def _reach(record: Any, path: list[str]) -> Any:
    for part in path:
        if record is None:
            return None
        record = getattr(record, type(record).__paths__[part])
    return record


def _batch(rows: list[list[Any]], schema: pa.Schema, numbers: Sequence[int], findings: Findings) -> pa.RecordBatch:
    columns = []
    for field, values in zip(schema, zip(*rows, strict=True) if rows else ((),) * len(schema), strict=True):
        try:
            columns.append(pa.array(values, field.type))
        except (pa.ArrowInvalid, OverflowError):  # JSON knows larger numbers than the table does
            fitting = [_fitting(v, field, n, findings) for v, n in zip(values, numbers, strict=True)]
            columns.append(pa.array([one.as_py() for one in fitting], field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _fitting(value: Any, field: pa.Field, number: int, findings: Findings) -> pa.Scalar:
    try:
        return pa.scalar(value, field.type)
    except (pa.ArrowInvalid, OverflowError):
        findings.add(number, field.name, f"{value} is too large or too fine for {field.type}")
        return pa.scalar(None, field.type)
