"""How a step's parameters are filled: by type, ties by name, decided before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from farandole import Attempt, Database, Pipeline, by, resource, step, use, when
from farandole.declaration import Declaration, Step, Subscription
from farandole.errors import DeclarationError
from farandole.event import fact
from farandole.fill import StepPlan, declared_class, plan
from farandole.problem import problems_of
from farandole.ready import READY, ready
from farandole.resources import Resources


@fact("test.fill.happened.v1")
@dataclass(frozen=True)
class Happened:
    what: str


@fact("test.fill.followed.v1")
@dataclass(frozen=True)
class Followed:
    what: str


class Busy(Exception):
    pass


class VeryBusy(Busy):
    pass


class Staged:
    pass


class StagedWell(Staged):
    pass


class Lake:
    pass


class Map:
    pass


@resource
def lake() -> Lake:
    return Lake()


@resource(read_only=True)
def a_map() -> Map:
    return Map()


def planned(*steps: Any, signals: int = 1, resources: Any = (lake, a_map)) -> tuple[StepPlan, ...]:
    """The plans of a pipeline with these steps, and one or two signals of one type."""
    body: dict[str, Any] = {"first": when(Happened), "steps": list(steps), "since": "now"}
    if signals == 2:
        body |= {"second": when(Happened), "join": by("what", within="1h")}
    declared = type("Some", (Pipeline,), body).declaration
    return plan(declared, resources)


def refused(*steps: Any, **more: Any) -> list[Any]:
    with pytest.raises(DeclarationError) as caught:
        planned(*steps, **more)
    return list(problems_of(caught.value))


def stage(first: Happened) -> StagedWell:
    return StagedWell()


def test_every_kind_of_parameter_is_filled():
    @step(effect="idempotent")
    async def all_of_them(
        event: Happened, staged: Staged, lake: Lake, way: Map | None, attempt: Attempt
    ) -> Followed: ...

    first, second = planned(stage, all_of_them)
    assert first.sources == (("signal", "first"),)
    assert second.sources == (
        ("signal", "first"), ("result", 0), ("resource", Lake), ("resource", Map), ("attempt", None),
    )  # fmt: skip
    assert (first.is_async, second.is_async) == (False, True)
    assert (first.returns, second.returns) == (StagedWell, Followed)
    assert second.writes == (Lake,)


def test_two_signals_of_one_type_are_told_apart_by_name():
    def both(second: Happened, first: Happened) -> None: ...

    (only,) = planned(both, signals=2)
    assert only.sources == (("signal", "second"), ("signal", "first"))


def test_two_results_of_one_type_are_told_apart_by_the_name_of_the_step():
    def again(first: Happened) -> StagedWell: ...
    def last(again: Staged) -> None: ...

    assert planned(stage, again, last)[2].sources == (("result", 1),)


def test_a_result_without_a_type_is_asked_for_by_name():
    def loose(first: Happened): ...
    def last(loose: Any, first: Any) -> None: ...

    assert planned(loose, last)[1].sources == (("result", 0), ("signal", "first"))


def test_a_parameter_with_a_default_that_nothing_gives_is_left_out():
    def some(first: Happened, size: int = 3, *rest: int, loud: bool = False, **more: int) -> None: ...

    assert planned(some)[0].sources == (("signal", "first"),)


def test_a_database_is_filled_by_its_type():
    def writes(first: Happened, database: Database) -> None: ...

    assert planned(writes)[0].sources == (("signal", "first"), ("database", None))


def test_a_catch_is_filled_with_the_error_and_everything_else():
    def refuse(error: Busy, first: Happened) -> Followed: ...

    @step(catch={VeryBusy: refuse})
    def work(first: Happened) -> None: ...

    (only,) = planned(work)
    assert only.catches["VeryBusy"].function is refuse
    assert only.catches["VeryBusy"].sources == (("error", None), ("signal", "first"))


def test_a_check_of_an_effect_is_filled_as_well():
    def looks(attempt: Attempt, lake: Lake) -> Followed | None: ...

    @step(effect="verify", check=looks)
    def work(first: Happened, lake: Lake) -> Followed: ...

    (only,) = planned(work)
    assert only.check is not None
    assert only.check.sources == (("attempt", None), ("resource", Lake))


def test_a_ready_made_step_is_made_from_its_options(monkeypatch):
    monkeypatch.setattr("farandole.ready.READY", dict(READY))

    @ready("test.count")
    def count(at_least: int) -> Any:
        def counted(event: Happened) -> Followed:
            return Followed(f"{event.what} {at_least}")

        return counted

    (only,) = planned(use("test.count", {"at_least": 3}))
    assert only.function(Happened("a")) == Followed("a 3")
    assert "does not take its options" in refused(use("test.count", {"at_most": 3}))[0].message
    assert "`test.count`" in refused(use("test.cuont"))[0].hint


def test_a_mistake_names_the_parameter_what_there_is_and_the_remedy():
    class Sea: ...

    def work(first: Happened, sea: Sea) -> None: ...

    work.__annotations__["sea"] = Sea
    (problem,) = refused(work, resources=[a_map])
    assert problem.message.splitlines() == [
        "some.work asks for `sea: Sea`, and nothing gives one",
        "  it has   first: Happened, Map, Attempt, Database",
    ]
    assert problem.hint.startswith("add a function labelled @resource that returns a Sea to ")
    assert "test_fill.py:" in problem.place


def by_type(event: Happened) -> None: ...
def no_type(event) -> None: ...
def only_named(*, first: Happened) -> None: ...
def after_default(size: int = 3, first: Happened = None) -> None: ...
def asks_error(first: Happened, error: Busy) -> None: ...
def asks_event(other: Followed) -> None: ...


@pytest.mark.parametrize(
    ("function", "signals", "message", "hint"),
    [
        (by_type, 2, "first and second are both that", "name the parameter after one of them"),
        (no_type, 1, "without a type", "annotate it"),
        (only_named, 1, "behind a *", "remove the *"),
        (asks_error, 1, "asks for `error: Busy`", "of a catch only"),
        (asks_event, 1, "asks for `other: Followed`", "other = when(Followed)"),
    ],
)
def test_what_cannot_be_filled_is_refused(function, signals, message, hint):
    (problem,) = refused(function, signals=signals)
    assert message in problem.message
    assert hint in problem.hint


def test_everything_that_cannot_be_filled_is_told_at_once():
    assert len(refused(no_type, only_named)) >= 1
    assert {p.message.partition(" ")[0] for p in refused(by_type, no_type, only_named, signals=2)} >= {"some.by_type"}


def test_a_function_that_is_not_there_is_refused_with_the_nearest():
    problems = _missing(Step("stag", f"{__name__}:stag", check=f"{__name__}:looked", effect="verify"))
    assert problems[0].hint == "did you mean `stage`?"
    assert "looked" in problems[1].message
    assert "no module" in _missing(Step("a", "nowhere_at_all:a"))[0].message
    assert "no function" in _missing(Step("a", f"{__name__}:READY"))[0].message


def _missing(step: Step) -> tuple[Any, ...]:
    subscriptions = (Subscription("first", "test.fill.happened.v1"),)
    with pytest.raises(DeclarationError) as caught:
        plan(Declaration("some", "", "now", subscriptions, (step,)))
    return problems_of(caught.value)


def test_a_policy_stands_in_one_place_only():
    declared = Declaration(
        "some",
        "",
        "now",
        (Subscription("first", "test.fill.happened.v1"),),
        (Step("labelled", f"{__name__}:labelled"),),
    )
    with pytest.raises(DeclarationError, match="policy of its own"):
        plan(declared)


@step(timeout="5m")
def labelled(first: Happened) -> None: ...


def test_an_unknown_event_type_is_refused_with_the_nearest():
    declared = Declaration(
        "some", "", "now", (Subscription("a", "test.fill.hapened.v1"),), (Step("a", f"{__name__}:stage"),)
    )
    with pytest.raises(DeclarationError, match="no event type") as caught:
        plan(declared)
    assert caught.value.hint == "did you mean `test.fill.happened.v1`?"


def test_an_unknown_error_of_a_catch_is_refused():
    from farandole.declaration import Catch

    problems = _missing(Step("stage", f"{__name__}:stage", catch=(Catch("Bussy", f"{__name__}:asks_error"),)))
    assert problems[0].hint == "did you mean `Busy`?"


def test_what_can_write_outside_declares_its_effect():
    def work(first: Happened, lake: Lake) -> None: ...

    (problem,) = refused(work)
    assert "can write outside" in problem.message
    assert "idempotent, verify, at_most_once, at_least_once" in problem.hint
    assert "read_only=True" in problem.hint


def test_a_stand_in_is_judged_by_what_it_stands_for():
    def work(first: Happened, lake: Lake) -> None: ...

    assert planned(work, resources=Resources.of({Lake: object()}))[0].writes == ()
    assert refused(work, resources=Resources.of({Lake: object()}, [lake]))


def test_a_pipeline_that_mixes_database_and_effect_is_refused():
    @step(effect="idempotent")
    def calls(first: Happened) -> None: ...
    def writes(first: Happened, database: Database) -> None: ...

    (problem,) = refused(calls, writes)
    assert "no commit covers both" in problem.message
    assert "split it in two" in problem.hint


def test_the_class_of_a_commit_follows_from_the_steps():
    @step(effect="idempotent")
    def calls(first: Happened) -> None: ...
    def writes(first: Happened, database: Database) -> None: ...
    def turns(first: Happened) -> Followed: ...

    for function, kind in ((calls, "outside"), (writes, "database"), (turns, "events")):
        declared = type("Some", (Pipeline,), {"first": when(Happened), "steps": [function], "since": "now"}).declaration
        assert declared_class(declared, plan(declared)) == kind
