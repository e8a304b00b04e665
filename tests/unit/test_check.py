"""`farandole check`: every mistake that can be known before running, at once."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from farandole import Database, Pipeline, Retry, by, resource, step, when
from farandole.check import check, check_services
from farandole.cli.check import check as command
from farandole.declaration import Declaration, Step, Subscription
from farandole.errors import DeclarationError
from farandole.event import EVENT_TYPES, fact
from farandole.locality import locality
from farandole.problem import Problem


@fact("test.check.landed.v1", key=("source",))
@dataclass(frozen=True)
class Landed:
    source: str
    uri: str


@fact("test.check.merged.v1", key=("table",))
@dataclass(frozen=True)
class Merged:
    table: str


@fact("test.check.told.v1")
@dataclass(frozen=True)
class Told:
    what: str


class TableBusy(Exception):
    pass


class Lake:
    pass


@resource
def lake() -> Lake:
    return Lake()


def fields(**types: Any) -> dict[str, Any]:
    """An Avro record with these fields."""
    return {"type": "record", "name": "A", "fields": [{"name": n, "type": t} for n, t in types.items()]}


SCHEMAS = {
    "test.check.landed.v1": fields(source="string", uri="string", size="long", share="double", day="string"),
    "test.check.merged.v1": fields(table="string", rows="long", day="long", tags={"type": "array", "items": "string"}),
    "test.check.told.v1": fields(what="string"),
}


def merge(file: Landed) -> Merged: ...


def mistakes(declared: Declaration, schemas: Any = SCHEMAS) -> list[Problem]:
    return [p for p in check(declared, schemas) if not p.note]


def a_pipeline(**words: Any) -> Declaration:
    """A sound pipeline, with these words changed."""
    usual = {"__doc__": "Merge files.", "file": when(Landed), "steps": [merge], "since": "now"}
    return type("Some", (Pipeline,), usual | words).declaration


def test_a_sound_pipeline_has_no_mistakes_and_says_how_it_runs():
    found = check(a_pipeline(file=when(Landed, where="source == 'erp' and size > 0"), once=("source", "uri")), SCHEMAS)
    assert [p.note for p in found] == [True, True]
    assert "events in, events out" in found[0].message
    assert "keys are local" in found[1].message


@step(retry=Retry(3, only="TableBusyy"))
def impatient(file: Landed) -> Merged: ...


def careless(file: Landed, lake: Lake) -> Merged: ...


def lost(file: Landed, atlas: dict) -> Merged: ...


def both(flights: Landed, weather: Merged) -> Told: ...


def silent(file: Landed) -> None: ...


@step(needs={"orders-api": "TableBsy"})
def trusting(file: Landed) -> Merged: ...


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ({"__doc__": ""}, "does not say what it is about", "docstring"),
        (
            {"file": when("test.check.lnded.v1"), "emits": ["test.check.merged.v1"]},
            "no event type",
            "`test.check.landed.v1`",
        ),
        ({"file": when(Landed, where="sorce == 'erp'")}, "did you mean `source`", "test.check.landed.v1.avsc"),
        ({"file": when(Landed, where="size == 'big'")}, "compares a number with 'big'", "avsc"),
        ({"once": "urn"}, "once: in test.check.landed.v1, the event has no field `urn`", "name a field"),
        ({"once": "share"}, "is a float", "decimal"),
        ({"steps": [impatient]}, "only names `TableBusyy`", "`TableBusy`"),
        ({"steps": [trusting]}, "needs orders-api: names `TableBsy`", "`TableBusy`"),
        ({"steps": [careless]}, "can write outside", "effect="),
        ({"steps": [lost]}, "nothing gives one", "@resource"),
        (
            {"emits": ["test.check.told.v1", "test.check.merged.v1"]},
            "`test.check.told.v1`, which no step returns",
            "remove",
        ),
        ({"emits": ["test.check.tld.v1"], "steps": [silent]}, "no such event type", "`test.check.told.v1`"),
        ({"emits": []}, "returns `test.check.merged.v1`, which the pipeline does not declare", "add it to emits"),
    ],
)
def test_a_mistake_is_found_and_told_with_a_hint(words, message, hint):
    problem = mistakes(a_pipeline(**words))[0]
    assert message in problem.message
    assert hint in problem.hint
    assert "test_check.py:" in problem.place


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (by("nothing", within="1h"), "no field `nothing`"),
        (by("day", within="1h"), "`day` is a text in flights and a number in weather"),
        (by("tags", within="1h"), "has no field `tags`"),
        (by("day", within="1h", where="weather.rows == flights.uri"), "compares a number with a text"),
        (by("day", within="1h", where="weathr.rows == 1"), "did you mean `weather`"),
    ],
)
def test_a_join_that_can_never_hold_is_found(join, message):
    words = {
        "__doc__": "Both.",
        "flights": when(Landed),
        "weather": when(Merged),
        "join": join,
        "steps": [both],
        "since": "now",
    }
    declared = type("Both", (Pipeline,), words).declaration
    assert any(message in p.message for p in mistakes(declared))


def test_a_schema_that_is_missing_is_found():
    schemas = {k: v for k, v in SCHEMAS.items() if "landed" not in k}
    (problem,) = mistakes(a_pipeline(), schemas)
    assert "has no schema" in problem.message


def test_everything_is_told_at_once():
    declared = a_pipeline(__doc__="", once="urn", file=when(Landed, where="size == 'big'"), steps=[impatient, careless])
    assert len(mistakes(declared)) == 5


def test_a_key_is_local_only_if_it_determines_the_record_key():
    def of(**words: Any) -> bool:
        return locality(a_pipeline(**words)).local

    assert of()
    assert of(once=("source", "uri"))
    assert not of(once="uri")
    assert not of(file=when(Told), steps=[by_what])
    assert "record key" in locality(a_pipeline(once="uri")).why


def by_what(file: Told) -> None: ...


def test_a_pipeline_on_our_database_claims_its_keys():
    def writes(file: Landed, database: Database) -> None: ...

    notes = [p.message for p in check(a_pipeline(steps=[writes]), SCHEMAS)]
    assert "a step writes to our database" in notes[0]
    assert "keys are claimed" in notes[1]


def test_a_manifest_that_does_not_declare_what_its_step_returns_is_found():
    declared = Declaration(
        "some", "About.", "now", (Subscription("file", "test.check.landed.v1"),), (Step("merge", f"{__name__}:merge"),)
    )
    (problem,) = mistakes(declared)
    assert problem.hint == "add it to emits: [test.check.merged.v1]"


@pytest.fixture
def platform(tmp_path, monkeypatch):
    """An empty repository to check: a function that writes a file into it. What it imports is forgotten afterwards."""
    events = dict(EVENT_TYPES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def forget() -> None:
        for name in [n for n in sys.modules if n.partition(".")[0] in ("services", "schemas")]:
            monkeypatch.delitem(sys.modules, name)

    def write(path: str, text: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    forget()
    yield write
    forget()
    EVENT_TYPES.clear()
    EVENT_TYPES.update(events)


HANDLERS = """
from dataclasses import dataclass
from farandole.event import fact

@fact("shop.order.placed.v1", key=("id",))
@dataclass
class OrderPlaced:
    id: str

def count(order: OrderPlaced) -> None: ...
"""
MANIFEST = """
pipeline: count-orders
about: Count orders.
since: now
when:
  order: {event: shop.order.placed.v1, where: id != ''}
steps:
  - call: handlers:count
"""


def a_shop(write: Any) -> None:
    write("services/count_orders/handlers.py", HANDLERS)
    write("services/count_orders/pipeline.yaml", MANIFEST)
    write("schemas/avro/shop.order.placed.v1.avsc", json.dumps(fields(id="string") | {"name": "shop.OrderPlaced"}))


def test_the_command_says_fine_and_leaves_with_0(platform):
    a_shop(platform)
    assert command.main([], standalone_mode=False) == 0
    done = CliRunner().invoke(command, [])
    assert done.output.splitlines()[0] == "count_orders  fine"


def test_the_command_prints_every_mistake_and_leaves_with_1(platform):
    a_shop(platform)
    platform(
        "services/count_orders/pipeline.yaml", MANIFEST.replace("id != ''", "idd != ''").replace("count\n", "cuont\n")
    )
    platform("services/broken/pipeline.yaml", "pipeline: broken\non: x\n")
    runner = CliRunner()
    lines = runner.invoke(command, []).output.splitlines()
    assert command.main(["count_orders"], standalone_mode=False) == 1
    assert lines[0].startswith("services/broken/pipeline.yaml:2:1  `on` cannot be a key")
    assert "  hint  did you mean `count`?" in lines
    assert any("did you mean `id`" in line for line in lines)
    assert lines[-1].endswith("mistakes in 2 of 2")


def test_the_command_gives_json(platform):
    a_shop(platform)
    platform("services/count_orders/pipeline.yaml", MANIFEST.replace("since: now\n", ""))
    (row,) = json.loads(CliRunner().invoke(command, ["-o", "json"], standalone_mode=False).output)
    assert row["kind"] == "mistake"
    assert row["place"] == "services/count_orders/pipeline.yaml:2"
    assert "since" in row["message"]


def test_a_broken_schema_is_told_once_and_the_rest_is_checked(platform):
    a_shop(platform)
    platform("schemas/avro/shop.order.placed.v1.avsc", "{")
    reports = check_services()
    assert [r.service for r in reports] == ["schemas", "count_orders"]
    assert reports[0].problems
    assert not reports[1].problems


TIMETABLE = "schedules:\n  nightly: {cron: 30 2 * * *, zone: Europe/Paris, since: 2026-01-31}\n"


def test_the_timetable_is_checked_with_the_whole_and_says_when_it_comes_next(platform):
    a_shop(platform)
    platform("topology/schedules.yaml", TIMETABLE)
    platform("schemas/avro/clock.ticked.v1.avsc", json.dumps(fields(schedule="string") | {"name": "clock.ClockTicked"}))

    (*_, schedules) = check_services()

    assert (schedules.service, schedules.problems) == ("schedules", ())
    assert schedules.notes[0].message.startswith("schedules: nightly next at ")
    assert [report.service for report in check_services(["count_orders"])] == ["count_orders"]


def test_a_mistake_in_the_timetable_is_told_with_its_line(platform):
    a_shop(platform)
    platform("topology/schedules.yaml", TIMETABLE.replace("Europe/Paris", "Europe/Pari"))

    lines = CliRunner().invoke(command, []).output.splitlines()

    assert "topology/schedules.yaml:2:37  nightly.zone: there is no time zone 'Europe/Pari'" in lines
    assert "  hint  did you mean `Europe/Paris`?" in lines


def test_a_folder_without_services_is_told(platform):
    with pytest.raises(DeclarationError, match="no service here"):
        check_services()


def test_a_labelled_function_is_checked_by_its_reference(platform):
    a_shop(platform)
    platform("services/hello/pipeline.py", HANDLERS.replace("order.placed", "order.paid") + HELLO)
    platform("schemas/avro/shop.order.paid.v1.avsc", json.dumps(fields(id="string") | {"name": "shop.OrderPaid"}))
    assert [r.problems for r in check_services(["services.hello.pipeline:hello", "hello"])] == [(), ()]


HELLO = """
from farandole import pipeline

@pipeline(when=OrderPlaced, since="now")
def hello(order: OrderPlaced) -> None:
    "Say hello."
"""
