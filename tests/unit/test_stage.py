"""The stage: what an author sees of a pipeline, without Kafka and with time in the test's hands."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from farandole import Attempt, Database, Interval, Pipeline, Retry, by, pipeline, resource, step, when
from farandole.declaration import Declaration, Step, Subscription
from farandole.errors import BrokerUnreachable, DeclarationError, FarandoleError, Unreachable
from farandole.testing import Stage, conservation, one_effect
from farandole.testing.log import ListSession
from tests.unit.stage_events import event


@event("stage.file.landed.v1", "uri")
class FileLanded:
    uri: str
    source: str
    format: str


@event("stage.file.counted.v1", "uri")
class FileCounted:
    uri: str
    rows: int


@event("stage.file.quarantined.v1", "uri")
class FileQuarantined:
    uri: str
    why: str


@event("stage.table.merged.v1", "table")
class TableMerged:
    table: str
    interval: str
    rows: int
    region: str = "nyc"


@event("stage.delays.refreshed.v1", "interval")
class DelaysRefreshed:
    interval: str
    rows: int


class BadRows(Exception):
    pass


class TableBusy(Exception):
    pass


@dataclass
class Staged:
    uri: str
    interval: str


class Lake:
    """What the steps work with; in tests always a fake."""


@dataclass
class FakeLake:
    busy: int = 0
    bad: bool = False
    calls: list[str] = field(default_factory=list)

    async def stage(self, uri: str) -> Staged:
        self.calls.append("stage")
        if self.bad:
            raise BadRows("row 2 has no id")
        return Staged(uri, "2013-03-14")

    async def merge(self, staged: Staged, into: str, key: str) -> int:
        self.calls.append("merge")
        self.busy -= 1
        if self.busy >= 0:
            raise TableBusy(into)
        return 100

    def refresh_delays(self, interval: str) -> int:
        self.calls.append(f"refresh {interval}")
        return 24


def count_rows(uri: str) -> int:
    return len(uri)


@pipeline(when=FileLanded, where="format == 'csv'", once="uri", since="now")
async def hello(file: FileLanded) -> FileCounted:
    """Count the rows of every CSV file that lands."""
    return FileCounted(file.uri, rows=count_rows(file.uri))


async def quarantine(file: FileLanded, error: BadRows) -> FileQuarantined:
    return FileQuarantined(file.uri, why=str(error))


@step(timeout="5m", catch={BadRows: quarantine})
async def stage(file: FileLanded, lake: Lake) -> Staged:
    return await lake.stage(file.uri)


@step(timeout="10m", retry=Retry(5, only=TableBusy, backoff="5s..5m"))
async def merge(staged: Staged, lake: Lake) -> TableMerged:
    rows = await lake.merge(staged, into="sales.orders", key="order_id")
    return TableMerged("sales.orders", staged.interval, rows)


class LoadOrders(Pipeline):
    """Merge every orders file of the ERP into sales.orders."""

    file = when(FileLanded, where="source == 'erp' and format == 'csv'")
    steps = [stage, merge]
    since = "now"


@step(timeout="10m", retry=Retry(5, only=TableBusy, backoff="1s..2m"))
def refresh(flights: TableMerged, weather: TableMerged, lake: Lake) -> DelaysRefreshed:
    return DelaysRefreshed(flights.interval, rows=lake.refresh_delays(flights.interval))


class MartDelays(Pipeline):
    """Refresh the delay mart when an interval's flights and weather are both merged."""

    flights = when(TableMerged, where="table == 'flights' and rows > 0")
    weather = when(TableMerged, where="table == 'weather'")
    join = by("interval", within="6h", where="weather.region == flights.region")
    steps = [refresh]
    since = "now"


A = FileLanded("s3://a", "erp", "csv")


def test_hello_counts_a_file_once():
    async def told_twice() -> Stage:
        stage = Stage(hello)
        await stage.send(FileLanded("s3://a", "erp", "csv"))
        await stage.send(FileLanded("s3://a", "erp", "csv"))
        return stage

    stage = asyncio.run(told_twice())

    assert stage.sent == [FileCounted("s3://a", rows=6)]
    assert stage.duplicates == 1


def test_hello_is_still_a_function():
    assert asyncio.run(hello(A)) == FileCounted("s3://a", rows=6)


def test_a_busy_table_is_tried_again_without_staging_twice():
    async def played() -> tuple[FakeLake, Stage]:
        lake = FakeLake(busy=2)
        stage = Stage(LoadOrders, resources={Lake: lake})
        await stage.send(FileLanded("s3://a", "erp", "csv"))
        await stage.wait("1m")
        return lake, stage

    lake, stage = asyncio.run(played())

    assert stage.sent == [TableMerged("sales.orders", "2013-03-14", 100)]
    assert lake.calls == ["stage", "merge", "merge", "merge"]


def test_nothing_happens_before_its_time():
    lake = FakeLake(busy=1)
    stage = Stage(LoadOrders, resources={Lake: lake})
    stage.tell(A)
    stage.wait("4s")

    assert (stage.sent, stage.under_way, lake.calls) == ([], 1, ["stage", "merge"])

    stage.wait("1s")
    assert (len(stage.sent), stage.under_way) == (1, 0)


def test_a_step_that_never_succeeds_gives_its_event_up_whole():
    stage = Stage(LoadOrders, resources={Lake: FakeLake(busy=99)})
    stage.tell(A)
    stage.wait("1h")

    (letter,) = stage.dead
    assert (letter.exception_class.endswith("TableBusy"), letter.step, letter.attempts) == (True, "merge", 5)
    assert (letter.event_type, stage.sent) == ("stage.file.landed.v1", [])
    assert [run.state for run in stage.runs] == ["dead"]
    assert conservation(stage) == []


def test_a_caught_error_is_business_and_is_not_retried():
    lake = FakeLake(bad=True)
    stage = Stage(LoadOrders, resources={Lake: lake})
    stage.tell(A)

    assert stage.sent == [FileQuarantined("s3://a", why="row 2 has no id")]
    assert ([run.state for run in stage.runs], lake.calls, stage.dead) == (["caught"], ["stage"], [])


def test_what_no_subscription_takes_is_filtered_with_the_reason():
    xml = FileLanded("s3://b", "erp", "xml")
    stage = Stage(hello)
    stage.tell(xml, A)

    assert stage.filtered == [(xml, "not (format == 'csv')")]
    assert len(stage.sent) == 1


def test_an_event_of_another_kind_is_refused():
    with pytest.raises(DeclarationError, match="hello does not listen for TableMerged"):
        Stage(hello).tell(TableMerged("flights", "d1", 1))


def test_two_signals_are_joined_once():
    lake = FakeLake()
    stage = Stage(MartDelays, resources={Lake: lake})
    flights, weather = TableMerged("flights", "d1", 7), TableMerged("weather", "d1", 3)

    stage.tell(flights)
    assert (stage.waiting, stage.sent) == ([flights], [])

    stage.tell(TableMerged("weather", "d2", 3), weather, flights, weather)
    assert stage.sent == [DelaysRefreshed("d1", 24)]
    assert stage.waiting == [TableMerged("weather", "d2", 3)]
    assert (conservation(stage), one_effect(stage)) == ([], [])


def test_of_two_events_that_come_at_once_the_first_waits_by_the_ledger_before_it_is_joined():
    stage = Stage(MartDelays, resources={Lake: FakeLake()})

    stage.tell(TableMerged("flights", "d1", 7), TableMerged("weather", "d1", 3))

    assert [e.state for e in stage.ledger if e.kind == "run"] == ["waiting", "done", "joined"]
    stage.restart()
    assert (len(stage.sent), conservation(stage), one_effect(stage)) == (1, [], [])


def test_a_set_whose_condition_does_not_hold_goes_on_waiting():
    stage = Stage(MartDelays, resources={Lake: FakeLake()})
    stage.tell(TableMerged("flights", "d1", 7, "nyc"), TableMerged("weather", "d1", 3, "sfo"))
    assert (len(stage.waiting), stage.sent) == (2, [])

    stage.tell(TableMerged("weather", "d1", 4, "nyc"))
    assert stage.sent == [DelaysRefreshed("d1", 24)]


def test_events_of_one_record_key_keep_their_order():
    lake = FakeLake(busy=1)
    stage = Stage(LoadOrders, resources={Lake: lake})
    stage.tell(FileLanded("s3://a", "erp", "csv"), id="1")
    stage.tell(FileLanded("s3://a", "erp", "csv"), id="2")
    assert lake.calls == ["stage", "merge"]

    stage.wait("1m")
    assert lake.calls == ["stage", "merge", "merge", "stage", "merge"]


def test_a_killed_worker_goes_on_after_the_last_step_that_gave_its_result():
    lake = FakeLake(busy=1)
    stage = Stage(LoadOrders, resources={Lake: lake})
    stage.tell(A)
    stage.restart()

    assert stage.sent == [TableMerged("sales.orders", "2013-03-14", 100)]
    assert lake.calls == ["stage", "merge", "merge"]
    assert [(s["name"], s["reused"]) for s in stage.runs[0].steps] == [("stage", True), ("merge", False)]


def test_what_was_settled_before_a_restart_is_not_run_again():
    stage = Stage(hello)
    stage.tell(A)
    stage.restart()
    stage.tell(A)

    assert (len(stage.sent), stage.duplicates, conservation(stage)) == (1, 1, [])


def test_the_same_key_with_other_content_is_dead_and_leaves_the_first_effect_alone():
    stage = Stage(hello)
    stage.tell(A)
    stage.tell(FileLanded("s3://a", "crm", "csv"))

    assert ([letter.stage for letter in stage.dead], len(stage.sent)) == (["dedup"], 1)
    assert conservation(stage) == []


def test_a_record_without_headers_is_an_event_and_bytes_are_none():
    stage = Stage("relationalize", resources={})
    stage.tell_raw("lake.file.landed.v1", b"\x00\x00\x00", b"weather")

    assert [letter.reason for letter in stage.dead] == ["decode.not-framed"]


@step(effect="idempotent", retry=Retry(3, backoff="1s"))
def post(file: FileLanded, attempt: Attempt, lake: Lake) -> FileCounted:
    lake.calls.append((attempt.key, attempt.number))  # type: ignore[attr-defined]
    if attempt.number < 3:
        raise TimeoutError
    return FileCounted(file.uri, 1)


class Calls(Pipeline):
    """Tell somebody outside."""

    file = when(FileLanded)
    steps = [post]
    since = "now"


def test_the_key_of_an_attempt_is_the_same_for_every_attempt():
    lake = FakeLake()
    stage = Stage(Calls, resources={Lake: lake})
    stage.tell(A)
    stage.wait("1m")

    keys, numbers = zip(*lake.calls, strict=True)
    assert (len(set(keys)), numbers) == (1, (1, 2, 3))
    assert stage.sent == [FileCounted("s3://a", 1)]


@step(effect="at_most_once")
def mail(file: FileLanded, lake: Lake) -> FileCounted:
    raise TimeoutError("no answer")


class Mails(Pipeline):
    """Send a mail, never twice."""

    file = when(FileLanded)
    steps = [mail]
    since = "now"


def test_an_effect_at_most_once_that_failed_ends_uncertain():
    stage = Stage(Mails, resources={Lake: FakeLake()})
    stage.tell(A)

    assert ([run.state for run in stage.runs], stage.sent, stage.dead) == (["uncertain"], [], [])


class Outside:
    pass


@resource
def outside() -> Outside:
    return Outside()


def write(file: FileLanded, outside: Outside) -> None: ...


def test_a_step_that_writes_outside_and_declares_nothing_does_not_start():
    class Silent(Pipeline):
        """Write somewhere and say nothing of it."""

        file = when(FileLanded)
        steps = [write]
        since = "now"

    with pytest.raises(DeclarationError, match="can write outside"):
        Stage(Silent, resources={Outside: Outside()})


def undeclared(file: FileLanded) -> Any:
    return FileCounted(file.uri, 1)


def test_an_event_that_is_not_declared_is_refused_and_not_retried():
    declared = Declaration(
        "sly", "", "now", (Subscription("file", "stage.file.landed.v1"),),
        (Step("undeclared", f"{__name__}:undeclared"),),
    )  # fmt: skip
    stage = Stage(declared)
    stage.tell(A)

    (letter,) = stage.dead
    assert (letter.attempts, "which it does not declare" in letter.message) == (1, True)


class Away(Unreachable):
    pass


@step(retry=1)
def asks(file: FileLanded, lake: Lake) -> FileCounted:
    lake.calls.append("asked")  # type: ignore[attr-defined]
    if len(lake.calls) < 4:  # type: ignore[attr-defined]
        raise Away("the registry does not answer")
    return FileCounted(file.uri, 1)


class Asks(Pipeline):
    """Ask something that may be away."""

    file = when(FileLanded)
    steps = [asks]
    since = "now"


def test_a_server_that_is_away_burns_no_attempt():
    stage = Stage(Asks, resources={Lake: FakeLake()})
    stage.tell(A)
    stage.wait("10s")

    assert (stage.sent, stage.dead) == ([FileCounted("s3://a", 1)], [])


@step(retry=Retry(2, backoff="1s"))
def keep(file: FileLanded, database: Database, attempt: Attempt) -> FileCounted:
    database.execute("INSERT INTO kept (uri) VALUES (:uri)", {"uri": file.uri})
    if file.format == "xml" or attempt.number == 1:
        raise BadRows("no")
    return FileCounted(file.uri, 1)


class Keeps(Pipeline):
    """Write to our own database."""

    file = when(FileLanded)
    steps = [keep]
    since = "now"


def test_what_a_step_writes_to_our_database_counts_exactly_when_its_run_does():
    stage = Stage(Keeps)
    stage.sql("CREATE TABLE kept (uri TEXT)")
    stage.tell(A, FileLanded("s3://b", "erp", "xml"), A)
    stage.wait("1m")

    assert stage.sql("SELECT uri FROM kept") == [("s3://a",)]
    assert (stage.sent, len(stage.dead)) == ([FileCounted("s3://a", 1)], 1)
    assert (conservation(stage), one_effect(stage)) == ([], [])


def test_what_sql_decided_goes_out_though_its_partition_is_lost_again_and_again_before_it_is_published(monkeypatch):
    def away(*_: Any) -> None:
        raise BrokerUnreachable("no answer", place="stage")

    stage = Stage(Keeps)
    stage.sql("CREATE TABLE kept (uri TEXT)")
    with monkeypatch.context() as cut_off:
        cut_off.setattr(ListSession, "publish", away)
        stage.tell(A)
        stage.wait("10s")
        for _ in range(3):
            stage._worker._anew(stage._worker.owned["stage.file.landed.v1", 0], 0.0)
            stage.wait("10s")
        assert (stage.sql("SELECT uri FROM kept"), stage.sent) == ([("s3://a",)], [])

    stage.wait("1m")

    assert (stage.sent, stage.duplicates) == ([FileCounted("s3://a", 1)], 0)
    assert (conservation(stage), one_effect(stage)) == ([], [])


def test_ids_of_what_is_sent_are_derived_so_a_second_stage_gives_the_same():
    first, second = Stage(hello), Stage(hello)
    first.tell(A)
    second.tell(A)

    assert first.records == second.records
    assert dict(first.records[0].headers)["ce_causationid"] == dict(first.records[0].headers)["ce_correlationid"]


def test_a_wrong_field_is_caught_by_the_schema():
    from schemas.events import FileLanded as RealFileLanded

    hour = Interval(datetime(2013, 1, 1, 6, tzinfo=UTC), datetime(2013, 1, 1, 7, tzinfo=UTC))
    with pytest.raises(FarandoleError, match="size"):
        Stage("relationalize").tell(RealFileLanded("s3://a", "erp", "csv", hour, "large"))  # type: ignore[arg-type]
