"""The lake as a resource: stage, merge, refresh, query. Arrow, Delta and DuckDB load when they are first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from farandole.event import Interval
from farandole.lake.folder import Folder
from farandole.lake.outcome import Merged, Refreshed, Staged

if TYPE_CHECKING:
    import duckdb
    from deltalake import DeltaTable

    from farandole.lake.merging import DeltaMerger
    from farandole.lake.staging import File
    from farandole.sources.metadata import Source


class Lake:
    """Raw, staged, tables and mart under one folder or url. Safe for the threads of one process, and for many.

    `storage` goes to the Delta writer, for buckets; see deltalake's storage options.
    """

    def __init__(self, url: str, storage: dict[str, str] | None = None) -> None:
        self.folder = Folder(url)
        self.storage = storage
        self._mergers: dict[str, DeltaMerger] = {}
        self._tables: dict[str, DeltaTable] = {}
        self._lock = threading.Lock()

    @property
    def raw(self) -> str:
        """Where files of sources land."""
        return self.folder.uri("raw")

    def table_uri(self, table: str) -> str:
        """Where the Delta table of that name is."""
        return self.folder.path(f"tables/{table}") if self.folder.local else self.folder.uri(f"tables/{table}")

    def stage(self, source: Source, file: File) -> list[Staged]:
        """Every table of a landed file as Parquet. Raises BadRows where a row breaks a rule of the source."""
        from farandole.lake.staging import stage

        return stage(self.folder, source, file)

    def merge(self, table: str, uri: str, key: tuple[str, ...], repeat: str = "") -> Merged:
        """Merge a staged file into its Delta table. Raises TableBusy if another commit came first.

        `repeat` is the attempt's key: the same merge asked for again is only looked up.
        """
        from farandole.lake.merging import DeltaMerger
        from farandole.lake.staging import staged_rows

        with self._lock:
            if table not in self._mergers:
                graves = self.table_uri(f"_deleted/{table}")
                self._mergers[table] = DeltaMerger(self.table_uri(table), graves, self.storage)
            merger = self._mergers[table]
        return merger.merge(staged_rows(self.folder, uri), key, repeat)

    def table(self, table: str) -> DeltaTable:
        """The Delta table of that name, as it stands now. Raises deltalake's TableNotFoundError."""
        from deltalake import DeltaTable

        with self._lock:
            known = self._tables.pop(table, None)  # taken out: a table being brought up to date is one thread's
        if known is None:
            known = DeltaTable(self.table_uri(table), storage_options=self.storage)
        else:
            known.update_incremental()
        return known

    def refresh(self, mart: str, interval: Interval, sql: str, over: Mapping[str, str]) -> Refreshed:
        """Make an interval of a mart anew: `sql` over the rows that each table of `over` has in it.

        `over` names, for each table, the column that holds its time. Again gives the same file, for the same
        tables; an interval without rows is a file without rows.
        """
        from farandole.lake.mart import refresh

        tables = {name: self.table(name) for name in over}
        try:
            return refresh(self.folder, mart, interval, sql, {name: (tables[name], over[name]) for name in over})
        finally:
            with self._lock:
                self._tables.update(tables)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection with a view for every table and, under its own name, every mart."""
        from farandole.lake.mart import connect

        home = self.folder.path("tables")
        paths = self.folder.fs.ls(home, detail=False) if self.folder.fs.isdir(home) else []
        names = [str(p).rstrip("/").rpartition("/")[2] for p in paths]
        return connect(self.folder, {n: self.table(n) for n in names if not n.startswith(("_", "."))})


def open_lake() -> Lake:
    """The lake at FARANDOLE_LAKE, a folder or an fsspec url; ``.farandole/lake`` unless set."""
    return Lake(os.environ.get("FARANDOLE_LAKE") or ".farandole/lake")
