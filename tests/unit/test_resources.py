"""Resources: opened once on first use, closed in reverse, asked for by type."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Protocol

import pytest
import sqlalchemy

from farandole import Database, resource
from farandole.errors import DeclarationError, Unfillable
from farandole.resources import Resources


class Lake:
    def __init__(self, log: list[str] | None = None) -> None:
        self.log = log if log is not None else []

    def healthy(self) -> None:
        if "ill" in self.log:
            raise OSError("the lake is dry")


class DeepLake(Lake):
    pass


class Agent:
    pass


class Named(Protocol):
    name: str


def test_a_resource_is_opened_on_first_use_and_once():
    opened: list[str] = []

    @resource
    def lake() -> Lake:
        opened.append("lake")
        return Lake()

    resources = Resources([lake])
    assert opened == []
    assert resources.get(Lake) is resources.get(Lake)
    assert opened == ["lake"]


def test_resources_are_closed_in_reverse():
    log: list[str] = []

    @resource
    def lake() -> Iterator[Lake]:
        log.append("open lake")
        yield Lake()
        log.append("close lake")

    @resource
    @contextmanager
    def agent() -> Iterator[Agent]:
        log.append("open agent")
        yield Agent()
        log.append("close agent")

    with Resources([agent, lake]) as resources:
        resources.get(Lake)
        resources.get(Agent)
    assert log == ["open lake", "open agent", "close agent", "close lake"]


def test_a_subclass_gives_what_its_parent_is_asked_for():
    @resource
    def deep() -> DeepLake:
        return DeepLake()

    resources = Resources([deep])
    assert isinstance(resources.get(Lake), DeepLake)
    assert resources.get(Lake) is resources.get(DeepLake)


def test_a_stand_in_is_given_under_the_type_that_is_asked_for():
    fake = object()
    assert Resources.of({Lake: fake}).get(Lake) is fake
    assert Resources.of({Named: fake}).get(Named) is fake


def test_many_threads_open_a_resource_once():
    opened: list[int] = []
    start = threading.Barrier(8)

    @resource
    def lake() -> Lake:
        opened.append(1)
        return Lake()

    resources = Resources([lake])

    def ask() -> None:
        start.wait()
        resources.get(Lake)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [1]


def test_what_nothing_gives_is_unfillable():
    with pytest.raises(Unfillable, match="nothing gives a Lake"):
        Resources().get(Lake)


def test_an_ill_resource_says_why():
    resources = Resources.of({Lake: Lake(["ill"]), Agent: Agent()})
    ((kind, error),) = resources.unwell()
    assert (kind, str(error)) == (Lake, "the lake is dry")


def no_type(): ...
def asks(size: int) -> Lake: ...
async def slow() -> Lake: ...
async def slower() -> AsyncIterator[Lake]:
    yield Lake()


def one() -> Lake: ...
def two() -> Lake: ...


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([no_type], "does not say which type it gives"),
        ([asks], "asks for parameters"),
        ([slow], "is async"),
        ([slower], "is async"),
        ([one, two], "both give a Lake"),
    ],
)
def test_a_resource_that_cannot_be_opened_is_refused(functions, message):
    with pytest.raises(DeclarationError, match=message) as caught:
        Resources([resource(f) for f in functions])
    assert caught.value.hint
    assert "test_resources.py:" in caught.value.place


def test_a_database_runs_statements_in_the_transaction_it_was_given():
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        database = Database(connection)
        database.execute("create table delay (day text, minutes int)")
        database.execute(
            "insert into delay values (:day, :minutes)", [{"day": "a", "minutes": 1}, {"day": "b", "minutes": 2}]
        )
        found = database.execute("select minutes from delay where day = :day", {"day": "b"}).scalar_one()
        connection.rollback()
    engine.dispose()
    assert found == 2
