"""The laws hold on a stage whatever is told, in whatever order, told twice, retried, and killed in between."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from farandole import Database, Pipeline, Retry, by, step, when
from farandole.testing import Stage, conservation, one_effect
from tests.unit.test_stage import BadRows, FileCounted, FileLanded, FileQuarantined, TableBusy, TableMerged


class Luck:
    """Says which call fails, and how."""

    def __init__(self, fates: list[str]) -> None:
        self.fates = fates

    def ask(self) -> None:
        fate = self.fates.pop() if self.fates else "fine"
        if fate == "busy":
            raise TableBusy
        if fate == "bad":
            raise BadRows("no")


def aside(file: FileLanded, error: BadRows) -> FileQuarantined:
    return FileQuarantined(file.uri, str(error))


@step(retry=Retry(3, backoff="1s"), catch={BadRows: aside})
def first(file: FileLanded, luck: Luck) -> str:
    luck.ask()
    return file.uri


@step(retry=Retry(2, backoff="5s"))
def second(file: FileLanded, kept: str, luck: Luck) -> FileCounted:
    luck.ask()
    return FileCounted(kept, 1)


@step(retry=Retry(2, backoff="1s"), effect="idempotent")
def outside(file: FileLanded, luck: Luck) -> FileCounted:
    luck.ask()
    return FileCounted(file.uri, 2)


@step(retry=Retry(2, backoff="1s"))
def inside(file: FileLanded, luck: Luck, database: Database) -> FileCounted:
    database.execute("INSERT INTO seen (uri) VALUES (:uri)", {"uri": file.uri})
    luck.ask()
    return FileCounted(file.uri, 3)


class Steps(Pipeline):
    """Two steps, no effect."""

    file = when(FileLanded, where="format == 'csv'")
    steps = [first, second]
    since = "beginning"


class Outside(Pipeline):
    """An effect outside."""

    file = when(FileLanded, where="format == 'csv'")
    steps = [outside]
    since = "beginning"


class Inside(Pipeline):
    """An effect in our database."""

    file = when(FileLanded, where="format == 'csv'")
    steps = [inside]
    since = "beginning"
    once = "uri"
    on_conflict = "drop"


@step(retry=Retry(2, backoff="1s"))
def both(flights: TableMerged, weather: TableMerged, luck: Luck) -> FileCounted:
    luck.ask()
    return FileCounted(flights.interval, flights.rows)


class Joined(Pipeline):
    """Two signals."""

    flights = when(TableMerged, where="table == 'flights'")
    weather = when(TableMerged, where="table == 'weather'")
    join = by("interval", within="6h")
    steps = [both]
    since = "beginning"


FATES = st.lists(st.sampled_from(["fine", "busy", "bad"]), max_size=12)
FILES = st.builds(FileLanded, st.sampled_from("abcd"), st.just("erp"), st.sampled_from(["csv", "csv", "xml"]))
TABLES = st.builds(TableMerged, st.sampled_from(["flights", "weather", "planes"]), st.sampled_from("12"), st.just(1))


def acts(events):
    told = st.lists(events, min_size=1, max_size=6)
    return st.lists(told | st.sampled_from(["wait", "restart"]), min_size=1, max_size=12)


def play(stage: Stage, script) -> None:
    for act in script:
        if act == "wait":
            stage.wait("2s")
        elif act == "restart":
            stage.restart()
        else:
            stage.tell(*act)
        assert conservation(stage) == []
    stage.wait("1h")
    assert (conservation(stage), one_effect(stage), stage.under_way, stage.open_records) == ([], [], 0, set())


@settings(deadline=None)
@given(acts(FILES), FATES)
def test_steps_obey_the_laws(script, fates):
    play(Stage(Steps, {Luck: Luck(fates)}), script)


@settings(deadline=None)
@given(acts(FILES), FATES)
def test_effects_outside_obey_the_laws(script, fates):
    play(Stage(Outside, {Luck: Luck(fates)}), script)


@settings(deadline=None)
@given(acts(TABLES), FATES)
def test_joins_obey_the_laws(script, fates):
    play(Stage(Joined, {Luck: Luck(fates)}), script)


@settings(max_examples=15, deadline=None)
@given(acts(FILES), FATES)
def test_effects_in_our_database_obey_the_laws_and_a_row_is_there_exactly_for_what_was_done(script, fates):
    stage = Stage(Inside, {Luck: Luck(fates)})
    stage.sql("CREATE TABLE seen (uri TEXT)")

    play(stage, script)

    rows = sorted(uri for (uri,) in stage.sql("SELECT uri FROM seen"))
    assert rows == sorted(event.uri for event in stage.sent)
