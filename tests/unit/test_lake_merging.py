from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farandole.lake import Lake, Merged, TableBusy
from farandole.lake.merging import COMPACT_EVERY, DeltaMerger, open_or_create

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string()), ("_changed_at", pa.int64()), ("_lsn", pa.int64())])
CHANGES = SCHEMA.append(pa.field("_op", pa.string()))


def upserts(*rows: tuple[int, str, int]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"id": i, "name": n, "_changed_at": at, "_lsn": 0} for i, n, at in rows], schema=SCHEMA
    )


def changes(*rows: tuple[str, int, str, int]) -> pa.Table:
    made = [{"id": i, "name": n, "_changed_at": at, "_lsn": 0, "_op": op} for op, i, n, at in rows]
    return pa.Table.from_pylist(made, schema=CHANGES)


def merger(folder: Path) -> DeltaMerger:
    return DeltaMerger(str(folder / "t"), str(folder / "graves"))


def content(folder: Path) -> dict[int, str]:
    table = open_or_create(str(folder / "t"), SCHEMA).to_pyarrow_table()
    ids = table["id"].to_pylist()
    assert len(ids) == len(set(ids)), "a key stands once"
    return dict(zip(ids, table["name"].to_pylist(), strict=True))


def test_rows_are_inserted_then_updated(tmp_path):
    into = merger(tmp_path)
    into.merge(upserts((1, "a", 1), (2, "b", 1)), ("id",))

    done = into.merge(upserts((2, "bb", 2), (3, "c", 2)), ("id",))

    assert done == Merged(2, 0, 2)
    assert content(tmp_path) == {1: "a", 2: "bb", 3: "c"}


def test_a_repeat_with_the_same_key_is_looked_up_and_says_the_same(tmp_path):
    into = merger(tmp_path)
    first = into.merge(upserts((1, "a", 1)), ("id",), repeat="k1")
    into.merge(upserts((2, "b", 1)), ("id",), repeat="k2")

    again = merger(tmp_path).merge(upserts((1, "a", 1)), ("id",), repeat="k1")

    assert again == first == Merged(1, 0, 1)
    assert open_or_create(str(tmp_path / "t"), SCHEMA).version() == 2


def test_a_deliberate_replay_merges_again_because_its_key_is_another(tmp_path):
    into = merger(tmp_path)
    into.merge(upserts((1, "a", 1)), ("id",), repeat="epoch0")
    open_or_create(str(tmp_path / "t"), SCHEMA).delete()

    into.merge(upserts((1, "a", 1)), ("id",), repeat="epoch1")

    assert content(tmp_path) == {1: "a"}


def test_an_older_row_never_overwrites_a_newer_one(tmp_path):
    into = merger(tmp_path)
    into.merge(upserts((1, "new", 5)), ("id",))

    done = into.merge(upserts((1, "old", 4)), ("id",))

    assert content(tmp_path) == {1: "new"}
    assert done.rows == 1, "the answer is the file's, not the table's"


def test_of_several_rows_with_one_key_the_last_counts(tmp_path):
    done = merger(tmp_path).merge(upserts((1, "a", 1), (1, "b", 1), (2, "z", 1)), ("id",))

    assert done.rows == 2
    assert content(tmp_path) == {1: "b", 2: "z"}


def test_nothing_to_merge_makes_the_table_and_no_commit(tmp_path):
    assert merger(tmp_path).merge(upserts(), ("id",)) == Merged(0, 0, -1)
    assert open_or_create(str(tmp_path / "t"), SCHEMA).version() == 0


def test_deletes_go_forward_and_a_row_can_come_back(tmp_path):
    into = merger(tmp_path)
    into.merge(changes(("u", 1, "a", 1), ("u", 2, "b", 1)), ("id",))
    done = into.merge(changes(("d", 1, "a", 2), ("u", 2, "bb", 2)), ("id",))
    assert done == Merged(1, 1, 2)
    assert content(tmp_path) == {2: "bb"}

    into.merge(changes(("u", 1, "again", 3)), ("id",))

    assert content(tmp_path) == {1: "again", 2: "bb"}


def test_a_late_change_does_not_raise_the_dead(tmp_path):
    into = merger(tmp_path)
    into.merge(changes(("d", 1, "a", 5)), ("id",))

    into.merge(changes(("u", 1, "a", 4), ("u", 2, "b", 4)), ("id",))

    assert content(tmp_path) == {2: "b"}


def test_a_late_delete_does_not_kill_what_came_back(tmp_path):
    into = merger(tmp_path)
    into.merge(changes(("u", 1, "again", 6)), ("id",))

    into.merge(changes(("d", 1, "a", 5)), ("id",))

    assert content(tmp_path) == {1: "again"}


history = st.lists(st.tuples(st.sampled_from("ud"), st.integers(1, 3)), min_size=1, max_size=8)


@settings(max_examples=12, deadline=None)
@given(log=history, order=st.randoms(use_true_random=False), cut=st.integers(1, 3))
def test_in_whatever_order_and_however_often_the_files_come_the_table_is_what_the_log_says(
    tmp_path_factory, log, order, cut
):
    folder = tmp_path_factory.mktemp("log")
    numbered = [(op, key, f"v{at}", at) for at, (op, key) in enumerate(log, 1)]
    files = [numbered[i : i + cut] for i in range(0, len(numbered), cut)]
    files += files[:2]
    order.shuffle(files)
    into = merger(folder)

    for file in files:
        into.merge(changes(*file), ("id",))

    last = {key: (op, name) for op, key, name, _ in numbered}
    assert content(folder) == {key: name for key, (op, name) in last.items() if op == "u"}


def test_two_writers_at_once_lose_nothing(tmp_path):
    merger(tmp_path).merge(upserts(), ("id",))
    busy: list[TableBusy] = []
    failed: list[BaseException] = []

    def write(who: int) -> None:
        into = merger(tmp_path)
        for n in range(8):
            while True:
                try:
                    into.merge(upserts((who * 100 + n, f"{who}", 1)), ("id",), repeat=f"{who}-{n}")
                    break
                except TableBusy as error:
                    busy.append(error)
                except BaseException as error:
                    failed.append(error)
                    return

    threads = [threading.Thread(target=write, args=(who,)) for who in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert len(content(tmp_path)) == 16


def test_a_commit_that_came_first_is_said_to_be_busy_and_the_next_try_succeeds(tmp_path):
    into, other = merger(tmp_path), merger(tmp_path)
    into.merge(upserts((1, "a", 1)), ("id",))
    real = into._current

    def overtaken(schema: pa.Schema) -> Any:
        table = real(schema)
        other.merge(upserts((2, "b", 1)), ("id",))
        return table

    into._current = overtaken  # type: ignore[method-assign]
    with pytest.raises(TableBusy, match="another commit came first"):
        into.merge(upserts((3, "c", 1)), ("id",))
    into._current = real  # type: ignore[method-assign]
    into.merge(upserts((3, "c", 1)), ("id",))

    assert content(tmp_path) == {1: "a", 2: "b", 3: "c"}


def test_a_new_column_is_taken_up_and_a_vanished_one_stays_as_it_was(tmp_path):
    into = merger(tmp_path)
    into.merge(upserts((1, "a", 1)), ("id",))
    wider = upserts((2, "b", 1)).append_column("tier", pa.array(["gold"]))
    into.merge(wider, ("id",))
    into.merge(upserts((3, "c", 1)), ("id",))

    table = open_or_create(str(tmp_path / "t"), SCHEMA).to_pyarrow_table().sort_by("id")

    assert table.select(["id", "tier"]).to_pylist() == [
        {"id": 1, "tier": None},
        {"id": 2, "tier": "gold"},
        {"id": 3, "tier": None},
    ]


def test_many_small_files_are_put_together(tmp_path):
    into = merger(tmp_path)
    for n in range(COMPACT_EVERY + 1):
        into.merge(upserts((n, "x", 1)), ("id",))

    table = open_or_create(str(tmp_path / "t"), SCHEMA)

    assert len(table.file_uris()) < 5
    assert len(content(tmp_path)) == COMPACT_EVERY + 1


def test_a_partitioned_table_keeps_a_part_for_each_day(tmp_path):
    start = datetime(2013, 1, 1, 23, tzinfo=UTC)
    rows = [
        {
            "at": start + timedelta(hours=n),
            "n": n,
            "_changed_at": 1,
            "_lsn": 0,
            "_day": (start + timedelta(hours=n)).date(),
        }
        for n in range(3)
    ]
    into = merger(tmp_path)
    into.merge(pa.Table.from_pylist(rows), ("at",))

    into.merge(pa.Table.from_pylist([{**rows[2], "n": 9}]), ("at",))

    table = open_or_create(str(tmp_path / "t"), SCHEMA)
    assert table.metadata().partition_columns == ["_day"]
    assert sorted(table.to_pyarrow_table()["n"].to_pylist()) == [0, 1, 9]


def test_the_lake_merges_a_staged_file_and_shows_it_without_its_own_columns(tmp_path):
    staged = tmp_path / "s.parquet"
    pq.write_table(upserts((1, "a", 1)), staged)
    lake = Lake(str(tmp_path / "lake"))

    lake.merge("orders", str(staged), ("id",), repeat="k")

    shown = lake.connect().table("orders")
    assert shown.columns == ["id", "name"]
    assert shown.fetchall() == [(1, "a")]
