"""Merge: staged rows go forward into their Delta table."""

from __future__ import annotations

from farandole import Attempt, resource
from farandole.lake import Lake, TableBusy, open_lake
from schemas.events import TableMerged, TableStaged

__all__ = ["TableBusy", "lake", "merge"]


@resource
def lake() -> Lake:
    """The lake that FARANDOLE_LAKE names."""
    return open_lake()


def merge(staged: TableStaged, lake: Lake, attempt: Attempt) -> TableMerged:
    """Upsert and delete. The attempt's key stands in the commit, so that a repeat only looks it up."""
    done = lake.merge(staged.table, staged.uri, tuple(staged.key_columns), repeat=attempt.key)
    return TableMerged(staged.table, staged.interval, done.rows, done.deleted, done.version)
