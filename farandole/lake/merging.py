"""Staged rows into a Delta table: upserts and deletes forward, an older change never over a newer one.

The answer (rows, deleted) comes from the staged file alone, so a repeat says the same. A commit goes to the
version after the one that was read, or fails: nobody else's commit can slip between, and the version that
holds a merge is known before it is written, which is how a repeat finds it again.
"""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from farandole.lake.outcome import Merged, TableBusy

COMPACT_EVERY = 24
"""Commits after which a table's small files are put together; by version, so every instance decides alike."""

_NEWER = "(s._changed_at > t._changed_at or (s._changed_at = t._changed_at and s._lsn >= t._lsn))"
_DAYS_NAMED = 40  # beyond that, naming the days in the predicate costs more than it prunes


class DeltaMerger:
    """One Delta table at `uri`, open for merges; its log is read once and then followed."""

    def __init__(self, uri: str, graves_uri: str, storage: dict[str, str] | None = None) -> None:
        self.uri, self.graves_uri, self.storage = uri, graves_uri, storage
        self._lock = threading.Lock()
        self._table: DeltaTable | None = None

    def merge(self, rows: pa.Table, key: tuple[str, ...], repeat: str = "") -> Merged:
        """Merge staged rows. A `repeat` (the attempt's key) that was merged before is only looked up.

        Raises TableBusy if another commit came first.
        """
        last = _last_of_each(rows, key)
        dead = pc.sum(pc.equal(last["_op"], "d")).as_py() or 0 if "_op" in last.column_names else 0
        with self._lock:
            table = self._current(rows.schema)
            if not len(last):
                return Merged(0)
            known = table.transaction_version(repeat) if repeat else None
            if known is None:
                known = table.version() + 1
                self._commit(table, last, key, repeat, known)
                if known % COMPACT_EVERY == 0:
                    self._compact(table)
            return Merged(len(last) - dead, dead, known)

    def _current(self, schema: pa.Schema) -> DeltaTable:
        if self._table is None:
            self._table = open_or_create(self.uri, schema, self.storage)
        else:
            self._table.update_incremental()
        return self._table

    def _commit(self, table: DeltaTable, last: pa.Table, key: tuple[str, ...], repeat: str, version: int) -> None:
        """One commit, at exactly `version`. The table's state was read before the graves: see `_buried`."""
        changes = "_op" in last.column_names
        if changes:
            last = self._buried(last, key)
        clauses = [f"t.{_q(k)} = s.{_q(k)}" for k in key]
        if "_day" in last.column_names:
            days = pc.unique(last["_day"]).to_pylist()
            clauses.append("t._day = s._day")
            if len(days) <= _DAYS_NAMED:
                clauses.append("t._day in (" + ", ".join(f"'{day}'" for day in days) + ")")
        columns = {_q(name): f"s.{_q(name)}" for name in last.column_names if name != "_op"}
        mark = [Transaction(repeat, version)] if repeat else None
        merger = table.merge(
            last,
            " and ".join(clauses),
            source_alias="s",
            target_alias="t",
            merge_schema=not set(columns) <= {_q(field.name) for field in table.schema().fields},
            commit_properties=CommitProperties(max_commit_retries=0, app_transactions=mark),
            post_commithook_properties=PostCommitHookProperties(create_checkpoint=True),
        )
        if changes:
            merger = merger.when_matched_delete(f"s._op = 'd' and {_NEWER}")
            merger = merger.when_matched_update(columns, f"s._op = 'u' and {_NEWER}")
            merger = merger.when_not_matched_insert(columns, "s._op = 'u'")
        else:
            merger = merger.when_matched_update(columns, _NEWER).when_not_matched_insert(columns)
        try:
            merger.execute()
        except CommitFailedError as error:
            self._table = None
            raise TableBusy(
                f"another commit came first: {error}", place=self.uri, hint="nothing was written; it is tried again"
            ) from error

    def _buried(self, last: pa.Table, key: tuple[str, ...]) -> pa.Table:
        """Bury the deletes, and drop what is older than a delete: a late change must not raise the dead.

        Graves are written before the table. Whoever read them too early read the table's version too early as
        well, and then its commit fails against ours.
        """
        names = [*key, "_changed_at", "_lsn"]
        deletes = last.filter(pc.equal(last["_op"], "d")).select(names)
        graves = open_or_create(self.graves_uri, deletes.schema, self.storage)
        if len(deletes):
            same = " and ".join(f"t.{_q(k)} = s.{_q(k)}" for k in key)
            (
                graves.merge(deletes, same, source_alias="s", target_alias="t")
                .when_matched_update_all(_NEWER)
                .when_not_matched_insert_all()
                .execute()
            )
        buried = pa.table(graves.to_pyarrow_table()).rename_columns([*key, "_buried_at", "_buried_lsn"])
        both = last.append_column("_row", pa.array(range(len(last)))).join(buried, list(key))
        late = pc.or_kleene(
            pc.less(both["_changed_at"], both["_buried_at"]),
            pc.and_kleene(
                pc.equal(both["_changed_at"], both["_buried_at"]), pc.less(both["_lsn"], both["_buried_lsn"])
            ),
        )
        keep = both.filter(pc.invert(pc.fill_null(late, False)))["_row"]  # noqa: FBT003  positional in Arrow
        return last.take(keep.combine_chunks().sort())

    def _compact(self, table: DeltaTable) -> None:
        try:
            table.optimize.compact(commit_properties=CommitProperties(max_commit_retries=0))
        except DeltaError:  # somebody else is at it; small files cost time, not truth
            self._table = None


def open_or_create(uri: str, schema: pa.Schema, storage: dict[str, str] | None = None) -> DeltaTable:
    """The Delta table at `uri`, made with the staged columns if there is none yet."""
    try:
        return DeltaTable(uri, storage_options=storage)
    except TableNotFoundError:
        pass
    fields: list[Any] = [field for field in schema if field.name != "_op"]
    try:
        return DeltaTable.create(
            uri,
            schema=pa.schema(fields),
            partition_by=["_day"] if "_day" in schema.names else None,
            storage_options=storage,
            configuration={"delta.checkpointInterval": str(COMPACT_EVERY)},
        )
    except DeltaError:  # another instance made it in the meantime
        return DeltaTable(uri, storage_options=storage)


def _last_of_each(rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """The newest row of each key: by change time, log position, then place in the file."""
    numbered = rows.append_column("_row", pa.array(range(len(rows)), pa.int64()))
    ordered = numbered.sort_by([("_changed_at", "ascending"), ("_lsn", "ascending"), ("_row", "ascending")])
    place = pa.array(range(len(rows)), pa.int64())
    last = ordered.append_column("_place", place).group_by(list(key), use_threads=False).aggregate([("_place", "max")])
    if len(last) == len(rows):
        return rows
    return ordered.take(last["_place_max"].combine_chunks().sort()).drop_columns(["_row"])


def _q(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
