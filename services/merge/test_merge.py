"""Merge says what the staged file holds, however often it is asked, and its metadata retries a busy table only."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from farandole import Attempt, Interval, Retry
from farandole.find import find_declaration
from farandole.lake import Lake, TableBusy
from farandole.testing import Stage
from schemas.events import TableMerged, TableStaged
from services.merge.handlers import merge

HOUR = Interval(datetime(2013, 1, 1, 6, tzinfo=UTC), datetime(2013, 1, 1, 7, tzinfo=UTC))


def staged(folder: Path) -> TableStaged:
    pq.write_table(pa.table({"id": [1, 2], "_changed_at": [1, 1], "_lsn": [0, 0], "_op": ["u", "d"]}), folder / "s")
    return TableStaged("orders", "crm", HOUR, str(folder / "s"), 2, "changes", ("id",))


def test_the_same_attempt_asked_again_gives_the_same_event(tmp_path: Path) -> None:
    event, attempt = staged(tmp_path), Attempt(key="k1", number=1, run_id="r1")

    first = merge(event, Lake(str(tmp_path / "lake")), attempt)
    again = merge(event, Lake(str(tmp_path / "lake")), attempt)

    assert first == again == TableMerged("orders", HOUR, rows=1, deleted=1, version=1)


def test_only_a_busy_table_is_tried_again() -> None:
    (step,) = find_declaration("merge").steps

    assert step.retry == Retry(8, only="TableBusy", backoff="50ms..2s")
    assert step.effect == "idempotent"


class BusyOnce(Lake):
    """A lake whose table is taken at the first try."""

    tries = 0

    def merge(self, table: str, uri: str, key: tuple[str, ...], *, repeat: str = "") -> Any:
        """Busy the first time."""
        self.tries += 1
        if self.tries == 1:
            raise TableBusy(f"{table} is being written to")
        return super().merge(table, uri, key, repeat=repeat)


def test_a_busy_table_is_merged_into_a_little_later(tmp_path: Path) -> None:
    lake = BusyOnce(str(tmp_path / "lake"))
    stage = Stage("merge", {Lake: lake})

    stage.tell(staged(tmp_path))
    assert stage.sent == []

    stage.wait("2s")
    assert (stage.sent, lake.tries) == ([TableMerged("orders", HOUR, rows=1, deleted=1, version=1)], 2)


def test_a_worker_that_died_in_the_middle_merges_nothing_twice(tmp_path: Path) -> None:
    lake = BusyOnce(str(tmp_path / "lake"))
    stage = Stage("merge", {Lake: lake})

    stage.tell(staged(tmp_path))
    stage.restart()

    assert (stage.sent, lake.tries) == ([TableMerged("orders", HOUR, rows=1, deleted=1, version=1)], 2)
