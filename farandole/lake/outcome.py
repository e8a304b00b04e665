"""What the lake answers with: the values and the errors that authors name. Loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from farandole.errors import FarandoleError
from farandole.event import Interval


@dataclass(frozen=True, slots=True)
class Staged:
    """Rows of one table as a Parquet file at `uri`, ready to merge. `mode` is ``upsert`` or ``changes``."""

    table: str
    source: str
    interval: Interval
    uri: str
    rows: int
    mode: str
    key_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge did: rows inserted or updated, rows deleted, and the table's version that holds it.

    `version` is -1 where there was nothing to merge.
    """

    rows: int
    deleted: int = 0
    version: int = -1


@dataclass(frozen=True, slots=True)
class Refreshed:
    """An interval of a mart: how many rows it has, and the file they stand in."""

    rows: int
    uri: str


class BadRows(FarandoleError):
    """A file whose rows cannot be trusted. `rows` counts the wrong ones; the text names the first of them."""

    def __init__(self, message: str, *, rows: int = 1, place: str = "") -> None:
        super().__init__(message, place=place, hint="mend the file or its rules under topology/sources; land it again")
        self.rows = rows


class TableBusy(FarandoleError):
    """Somebody else committed to the table first. Nothing was written; try again."""
