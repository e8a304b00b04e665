"""Commands as values: what is written is what is read, and which of them share an id."""

from __future__ import annotations

from dataclasses import fields
from io import BytesIO

import fastavro

from farandole.control import PAUSE, PROGRESS, RESCHEDULE, Command, pipeline_id, plan_id, run_id_of
from farandole.topics import AUDIT, CONTROL, own_schemas

SCHEMA = fastavro.parse_schema(own_schemas()[CONTROL])


def there_and_back(command):
    out = BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, command.record())
    out.seek(0)
    return Command.of(fastavro.schemaless_reader(out, SCHEMA, None))


def test_a_command_reads_back_as_it_was_written():
    due = Command(run_id_of("r"), RESCHEDULE, "p", "r", "ada", "later", 1_700_000_000_123, 1_700_000_100_456)
    part = Command(plan_id("7", 3), PROGRESS, "p", detail={"step": "2"}, ids=("a", "b"))
    assert [there_and_back(c) for c in (due, part)] == [due, part]


def test_the_schema_has_the_fields_of_the_value():
    assert [f.name for f in fields(Command)] == [f["name"] for f in own_schemas()[CONTROL]["fields"]]
    assert own_schemas()[AUDIT] == own_schemas()[CONTROL]


def test_fields_of_a_newer_writer_are_left_out():
    assert Command.of({**Command("x", PAUSE).record(), "colour": "red"}) == Command("x", PAUSE)


def test_the_parts_of_a_plan_begin_with_its_id_and_with_no_other_plans():
    assert plan_id("7", 0).startswith(plan_id("7", "") + ":")
    assert not plan_id("71", 0).startswith(plan_id("7") + ":")


def test_pause_and_resume_of_a_pipeline_share_an_id():
    assert pipeline_id("merge") == Command(pipeline_id("merge"), PAUSE).key.decode()
