"""Opening a store: the tables come by themselves, once, and what cannot be opened says why."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import urlsplit, urlunsplit

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from farandole.errors import DatabaseUnreachable, SettingsError, TablesLost
from farandole.store import host, migrate, open_store
from farandole.store.tables import metadata
from tests.contract.store_values import key, outcome, own, settlement, together


def test_the_migrations_give_the_tables_that_the_code_knows(store):
    with store.engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"version_table": migrate.VERSION_TABLE})

        assert compare_metadata(context, metadata) == []


def test_a_second_start_loads_no_alembic(store, another_store, monkeypatch):
    def upgrade(*_):
        raise AssertionError

    monkeypatch.setattr(migrate, "_migrate", upgrade)

    another_store()


def test_first_starts_of_several_threads_at_once_all_succeed(another_store):
    stores = together(*[another_store] * 5)

    assert {one.inbox.count() for one in stores} == {0}


def test_first_starts_of_several_processes_at_once_all_succeed(store_url):
    start = (
        "import sys; from farandole.store import open_store; s = open_store(sys.argv[1], 'p'); print(s.inbox.count())"
    )

    starting = [
        subprocess.Popen(
            [sys.executable, "-c", start, store_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    ended = [process.communicate(timeout=60) for process in starting]

    assert [out for out, _ in ended] == ["0\n"] * 3, ended


@pytest.mark.parametrize("gone", ["dedup", migrate.VERSION_TABLE])
def test_a_table_that_goes_between_two_looks_is_told_as_lost(store, gone):
    with store.transaction() as conn:
        conn.execute(text(f"DROP TABLE {gone}"))

    with pytest.raises(TablesLost, match=f"the table {gone} is gone"), store.transaction() as conn:
        conn.execute(text(f"SELECT * FROM {gone}"))


def test_tables_that_are_dropped_one_by_one_while_some_are_made_anew_are_all_there_again(store, another_store):
    with store.transaction() as conn:
        for gone in ("dedup", migrate.VERSION_TABLE):
            conn.execute(text(f"DROP TABLE {gone}"))

    again = another_store()

    assert not store.recovery.whole()
    with again.engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"version_table": migrate.VERSION_TABLE})
        assert (context.get_current_revision(), compare_metadata(context, metadata)) == (migrate.HEAD, [])


def test_tables_of_which_nothing_says_the_release_are_refused_where_they_are_not_those_of_this_one(
    store, another_store
):
    with store.transaction() as conn:
        conn.execute(text(f"DROP TABLE {migrate.VERSION_TABLE}"))
        conn.execute(text("ALTER TABLE lease DROP COLUMN owner"))

    with pytest.raises(SettingsError, match="lease is of another release") as raised:
        another_store()

    assert "drop all tables" in raised.value.hint


def test_a_table_that_somebody_dropped_is_made_again(store, another_store):
    store.inbox.settle([settlement(own(store), outcome(1))])
    with store.transaction() as conn:
        conn.exec_driver_sql("DROP TABLE position")
        conn.exec_driver_sql("DROP TABLE dedup")

    again = another_store()

    assert again.inbox.known(0, [key(1)]) == {}
    assert again.inbox.settle([settlement(own(again), outcome(1))]) == []


def test_tables_of_a_newer_release_are_refused(store, another_store):
    with store.transaction() as conn:
        conn.exec_driver_sql(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'")

    with pytest.raises(SettingsError, match="newer farandole"):
        another_store()


def test_what_an_author_does_wrong_in_sql_is_told_as_it_is(store):
    with pytest.raises(DBAPIError), store.transaction() as conn:
        conn.exec_driver_sql("SELECT * FROM no_such_table")


def test_a_transaction_ends_with_its_exception(store):
    def work(left):
        with store.transaction() as conn:
            conn.exec_driver_sql("CREATE TABLE effect (n integer)")
            return 1 / left

    with pytest.raises(ZeroDivisionError):
        work(0)
    with store.transaction() as conn:
        conn.exec_driver_sql("CREATE TABLE effect (n integer)")


# --- SQLite ---------------------------------------------------------------------------------------------------------


def test_the_folder_is_made_and_each_pipeline_has_its_file(tmp_path):
    for pipeline in ("merge", "landing"):
        open_store(f"sqlite:///{tmp_path}/new/folder/{{pipeline}}.db", pipeline).close()

    assert {one.name for one in (tmp_path / "new/folder").glob("*.db")} == {"merge.db", "landing.db"}


def test_a_sqlite_commit_reaches_the_disk_before_it_answers(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/x.db", "merge")
    with store.transaction() as conn:
        pragmas = [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    store.close()

    assert pragmas == ["wal", 2]


def test_a_file_of_another_machine_is_refused(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/x.db"
    open_store(url, "merge").close()
    monkeypatch.setattr(host, "machine_id", lambda: "another-machine")
    monkeypatch.setattr(host, "_read", lambda _: "another-boot")

    for pipeline in ("merge", "landing"):
        with pytest.raises(SettingsError) as raised:
            open_store(url, pipeline)
        assert "PostgreSQL" in raised.value.hint
        assert raised.value.place == url


def test_a_container_with_a_machine_id_of_its_own_on_the_same_kernel_is_let_in(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/x.db"
    open_store(url, "merge").close()
    monkeypatch.setattr(host, "machine_id", lambda: "another-container")

    open_store(url, "merge").close()


def test_a_writer_that_holds_the_file_is_waited_for_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr("farandole.store.engine.BUSY_TIMEOUT", 0.05)
    url = f"sqlite:///{tmp_path}/x.db"
    store, other = open_store(url, "merge"), open_store(url, "merge")

    with store.transaction(), pytest.raises(DatabaseUnreachable, match="another writer"):
        own(other)
    own(other)

    store.close()
    other.close()


def test_a_full_disk_is_told_and_work_goes_on_when_there_is_room(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/x.db", "merge")
    lane = own(store)

    def fill():
        with store.transaction() as conn:
            pages = conn.exec_driver_sql("PRAGMA page_count").scalar()
            conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            conn.exec_driver_sql("CREATE TABLE effect AS SELECT zeroblob(100000)")

    with pytest.raises(DatabaseUnreachable, match="disk is full") as raised:
        fill()
    assert raised.value.hint
    with store.engine.connect() as conn:
        conn.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert store.inbox.settle([settlement(lane, outcome(1))]) == []
    store.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda file: file.write_text("this is a letter, not a database, and long enough to be none" * 20),
            "no SQLite",
        ),
        (lambda file: file.mkdir(), "cannot be opened"),
    ],
)
def test_a_file_that_is_no_database_is_named(tmp_path, make, says):
    make(tmp_path / "x.db")

    with pytest.raises(SettingsError, match=says) as raised:
        open_store(f"sqlite:///{tmp_path}/x.db", "merge")

    assert str(tmp_path) in raised.value.place


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(SettingsError, match="folder"):
        open_store(f"sqlite:///{tmp_path}/file/x.db", "merge")


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


def test_a_postgresql_session_waits_for_no_lock_for_ever(stack):
    store = open_store(stack.postgres_url(), "merge")
    with store.transaction() as conn:
        shown = [
            conn.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("lock_timeout", "idle_in_transaction_session_timeout", "synchronous_commit")
        ]
    store.close()

    assert shown == ["5s", "1min", "on"]


def test_a_killed_connection_is_told_and_the_next_call_has_a_new_one(stack):
    store = open_store(stack.postgres_url(), "merge")

    def die():
        with store.transaction() as conn:
            conn.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(DatabaseUnreachable):
        die()
    assert own(store).fence > 0
    store.close()


def test_a_database_that_is_not_there_is_named(stack):
    url = urlunsplit(urlsplit(stack.postgres_url())._replace(path="/nowhere"))

    with pytest.raises(SettingsError, match="no such database") as raised:
        open_store(url, "merge")

    assert "FARANDOLE_DATABASE_URL" in raised.value.hint


def test_a_user_that_is_not_let_in_is_told_and_the_password_is_not(stack):
    parts = urlsplit(stack.postgres_url())
    url = urlunsplit(parts._replace(netloc="nobody:secret@" + parts.netloc.rpartition("@")[2]))

    with pytest.raises(SettingsError, match="user or the password") as raised:
        open_store(url, "merge")

    assert "secret" not in str(raised.value)


def test_a_server_that_is_away_is_unreachable():
    with pytest.raises(DatabaseUnreachable, match="does not answer"):
        open_store("postgresql://someone@127.0.0.1:1/nothing", "merge")


def test_a_day_has_a_partition_of_its_own(stack):
    store = open_store(stack.postgres_url(), "merge")
    store.inbox.settle([settlement(own(store), outcome(1))])
    with store.transaction() as conn:
        today = store.inbox.buckets.day(conn)
        rows = conn.exec_driver_sql(f"SELECT count(*) FROM dedup_{today}").scalar()
    store.close()

    assert rows == 1
