"""Relationalize: a landed file of any declared source becomes the staged rows of its tables."""

from __future__ import annotations

from farandole import Retry, resource, step
from farandole.errors import DeclarationError
from farandole.lake import BadRows, Lake, open_lake
from farandole.sources.metadata import Sources, open_sources
from schemas.events import FileLanded, FileQuarantined, TableStaged


@resource
def lake() -> Lake:
    """The lake that FARANDOLE_LAKE names."""
    return open_lake()


@resource(read_only=True)
def sources() -> Sources:
    """The sources as they are declared now: a YAML file more is a branch more."""
    return open_sources()


def quarantine(file: FileLanded, error: BadRows) -> FileQuarantined:
    """A file whose rows break a rule: a business fact, which no retry would change."""
    return FileQuarantined(uri=file.uri, source=file.source, why=error.message, rows=error.rows)


@step(
    timeout="10m",
    retry=Retry(4, never=DeclarationError, backoff="200ms..30s"),
    catch={BadRows: quarantine},
    effect="idempotent",
)
def stage(file: FileLanded, sources: Sources, lake: Lake) -> list[TableStaged]:
    """The file's rows as Parquet, one file for each table that its source gives."""
    staged = lake.stage(sources.source(file.source), file)
    return [TableStaged(s.table, s.source, s.interval, s.uri, s.rows, s.mode, s.key_columns) for s in staged]
