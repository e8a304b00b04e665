"""From a landed file to Parquet: read as a stream, typed, checked, and standing whole at a path that repeats."""

from __future__ import annotations

from contextlib import ExitStack
from hashlib import blake2b
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from farandole.event import Interval
from farandole.lake.folder import Folder
from farandole.lake.outcome import BadRows, Staged
from farandole.lake.readers import read
from farandole.lake.rows import Findings, check, staged_schema, with_order
from farandole.sources.metadata import Source


class File(Protocol):
    """What staging asks of a landed file; the event ``lake.file.landed.v1`` is one."""

    @property
    def uri(self) -> str:
        """Where it is."""

    @property
    def interval(self) -> Any:
        """What it is about: anything with a `start` and an `end` in UTC."""

    @property
    def digest(self) -> str:
        """Of its content, or empty."""


def stage(folder: Folder, source: Source, file: File) -> list[Staged]:
    """Stage every table of a landed file, the main one first. Again gives the same files and the same answer.

    Raises BadRows, and leaves nothing behind, if any row breaks a rule; FileNotFoundError if the file has gone.
    """
    interval = Interval(file.interval.start, file.interval.end)
    name = file.digest or blake2b(file.uri.encode(), digest_size=16).hexdigest()
    shapes = source.shapes()
    counts = dict.fromkeys(shapes, 0)
    paths = {t: f"staged/{t}/{interval.start:%Y-%m-%dT%H%M}Z/{name}.parquet" for t in shapes}
    findings = Findings()
    with ExitStack() as ends, folder.open(file.uri) as handle:
        writers = {}
        for table, shape in shapes.items():
            # the writer closes first, then the file is renamed: an ExitStack unwinds backwards
            out = ends.enter_context(folder.replacing(paths[table]))
            writers[table] = ends.enter_context(pq.ParquetWriter(out, staged_schema(shape, source), compression="zstd"))
        try:
            for table, batch, numbers in read(source, handle, findings):
                shape = shapes[table]
                check(batch, shape, numbers, findings)
                findings.verdict(file.uri, enough=Findings.ENOUGH)
                counts[table] += len(batch)
                if not findings.first and len(batch):
                    whole = with_order(batch, shape, source, interval.start)
                    writers[table].write_batch(whole.select(writers[table].schema.names))
        except BadRows as error:
            raise BadRows(error.message, rows=error.rows, place=file.uri) from error
        for table, shape in shapes.items():
            if counts[table] < shape.rules.at_least:
                findings.add(0, table, f"{table} has {counts[table]} rows, and at_least asks {shape.rules.at_least}")
        findings.verdict(file.uri)
    return [
        Staged(t, source.source, interval, folder.uri(paths[t]), counts[t], source.mode, shape.key)
        for t, shape in shapes.items()
    ]


def staged_rows(folder: Folder, uri: str) -> pa.Table:
    """The rows of a staged file. Raises FileNotFoundError."""
    with folder.open(uri) as handle:
        return pq.read_table(handle)
