"""Rows and what must hold for them: types as Arrow knows them, findings that name row, column and rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from farandole.lake.outcome import BadRows
from farandole.sources.metadata import DECIMAL, Rules, Shape, Source

BATCH = 8192
"""Rows that are held at a time where a reader builds them one by one."""

_TYPES = {
    "int": pa.int64(),
    "float": pa.float64(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
}


class Findings:
    """What was found wrong in a file so far: every row counted, the first few named."""

    NAMED = 3
    ENOUGH = 100_000  # a file with that many wrong rows is not read to its end

    def __init__(self) -> None:
        self.first: list[str] = []
        self._wrong: set[int] = set()

    def add(self, row: int, column: str, what: str) -> None:
        """Note one finding. `row` counts the file's records from 1; 0 is the file as a whole."""
        if len(self.first) < self.NAMED:
            self.first.append(f"row {row}, {column}: {what}" if row else what)
        if row:
            self._wrong.add(row)

    def count(self, rows: Iterable[int]) -> None:
        """Note more rows that are wrong in a way that was named."""
        self._wrong.update(rows)

    @property
    def rows(self) -> int:
        """Rows that were found wrong."""
        return len(self._wrong)

    def verdict(self, place: str, *, enough: int = 0) -> None:
        """Raises BadRows if anything was found, and more than `enough`."""
        if self.first and self.rows >= enough:
            unnamed = self.rows - len(self.first)
            more = f" (and {unnamed} more rows)" if unnamed > 0 else ""
            raise BadRows("; ".join(self.first) + more, rows=max(self.rows, 1), place=place)


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a source's type word."""
    if decimal := DECIMAL.fullmatch(name):
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    return _TYPES[name]


def arrow_schema(shape: Shape) -> pa.Schema:
    """The Arrow schema of a shape's declared columns, in their order."""
    return pa.schema([(name, arrow_type(column.type)) for name, column in shape.columns.items()])


def typed(texts: pa.RecordBatch, shape: Shape, numbers: Sequence[int], findings: Findings) -> pa.RecordBatch:
    """Rows of text as rows of the declared types; what does not convert is a finding and becomes null.

    `numbers` are the numbers of the rows in their file, from 1.
    """
    schema = arrow_schema(shape)
    columns = []
    for field in schema:
        texts_of = texts.column(texts.schema.get_field_index(field.name))
        try:
            columns.append(pc.cast(texts_of, field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            values = []
            for index, text in enumerate(texts_of):
                try:
                    values.append(pc.cast(text, field.type))
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                    values.append(pa.scalar(None, field.type))
                    word = shape.columns[field.name].type
                    findings.add(numbers[index], field.name, f"{text.as_py()!r} is no {word}")
            columns.append(pa.array([v.as_py() for v in values], field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def check(batch: pa.RecordBatch, shape: Shape, numbers: Sequence[int], findings: Findings) -> None:
    """Hold the rules against every row of a batch. The key is never null, whether the rules say so or not."""
    for column, what, wrong in _broken(batch, shape):
        rows = pc.indices_nonzero(pc.fill_null(wrong, False)).to_pylist()  # noqa: FBT003  positional in Arrow
        if not rows:
            continue
        value = batch.column(batch.schema.get_field_index(column))[rows[0]].as_py()
        findings.add(numbers[rows[0]], column, what if value is None else f"{value!r} {what}")
        findings.count(numbers[row] for row in rows)


def _broken(batch: pa.RecordBatch, shape: Shape) -> Iterator[tuple[str, str, pa.Array]]:
    rules: Rules = shape.rules

    def of(name: str) -> pa.Array:
        return batch.column(batch.schema.get_field_index(name))

    for name in dict.fromkeys((*shape.key, *rules.not_null)):
        yield name, "is empty, and not_null forbids that", pc.is_null(of(name))
    for name, (low, high) in rules.between.items():
        yield name, f"is not between {low:g} and {high:g}", pc.or_(pc.less(of(name), low), pc.greater(of(name), high))
    for name, allowed in rules.one_of.items():
        known = pc.is_in(pc.cast(of(name), pa.string()), pa.array(allowed, pa.string()))
        yield name, f"is none of one_of: {', '.join(allowed)}", pc.and_(pc.is_valid(of(name)), pc.invert(known))
    for name, pattern in rules.matches.items():
        found = pc.match_substring_regex(pc.cast(of(name), pa.string()), pattern)
        yield name, f"does not match {pattern}", pc.invert(found)


def with_order(batch: pa.RecordBatch, shape: Shape, source: Source, start: datetime) -> pa.RecordBatch:
    """Add what the merge goes by: when a row changed (the interval's start unless the feed says), and its day."""
    if source.mode == "upsert":
        changed = pa.repeat(pa.scalar(round(start.timestamp() * 1000), pa.int64()), len(batch))
        batch = batch.append_column("_changed_at", changed)
        batch = batch.append_column("_lsn", pa.repeat(pa.scalar(0, pa.int64()), len(batch)))
    if shape.partition:
        moments = batch.column(batch.schema.get_field_index(shape.partition))
        batch = batch.append_column("_day", pc.cast(moments, pa.date32(), safe=False))
    return batch


def staged_schema(shape: Shape, source: Source) -> pa.Schema:
    """The schema of a staged file: the declared columns and the lake's own, which begin with ``_``."""
    extra = [pa.field("_op", pa.string())] if source.mode == "changes" else []
    extra += [pa.field("_changed_at", pa.int64()), pa.field("_lsn", pa.int64())]
    extra += [pa.field("_day", pa.date32())] if shape.partition else []
    return pa.schema([*arrow_schema(shape), *extra])
