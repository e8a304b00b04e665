"""Newer code takes a run up where the older code left it: what the names of its steps mean, and what it can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from farandole import Pipeline, Retry, step, when
from farandole.event import fact
from farandole.testing import Stage, conservation

asked: list[str] = []


@fact("newer.file.landed.v1", key=("path",))
@dataclass(frozen=True)
class FileLanded:
    """A file."""

    path: str

    @classmethod
    def of(cls, record: Any) -> FileLanded:
        return cls(record["path"])

    def record(self) -> dict[str, Any]:
        return {"path": self.path}


@dataclass(frozen=True)
class Rows:
    """What the first step gives."""

    count: int


@dataclass(frozen=True)
class MoreRows:
    """What it gives in newer code: another name, and a field with a default."""

    count: int
    bad: int = 0


@dataclass(frozen=True)
class Table:
    """What it gives in code that cannot read the older one."""

    name: str


@dataclass(frozen=True)
class Checked:
    """What a step gives that did not stand there before."""

    good: bool


def read(file: FileLanded) -> Rows:
    asked.append("read")
    return Rows(3)


@step(retry=Retry(1))
def write(rows: Rows) -> None:
    asked.append("write")
    raise ValueError("the table is not there")


def write_well(rows: Rows) -> None:
    asked.append("write_well")


def read_more(file: FileLanded) -> MoreRows:
    asked.append("read_more")
    return MoreRows(3)


def write_more(rows: MoreRows) -> None:
    asked.append(f"write_more {rows.count} {rows.bad}")


def shrug(file: FileLanded) -> None:
    asked.append("shrug")


@step(catch={Exception: shrug})
def read_table(file: FileLanded) -> Table:
    asked.append("read_table")
    return Table("t")


def write_table(table: Table) -> None:
    asked.append("write_table")


def look(file: FileLanded) -> Checked:
    asked.append("look")
    return Checked(good=True)


def judge(rows: Rows) -> None:
    asked.append("judge")


def pipeline_of(*functions: Any, **names: str) -> type[Pipeline]:
    """The pipeline with these steps; `names` are other names that they have in it."""

    class Loading(Pipeline):
        """Load files."""

        name = "newer-loading"
        file = when(FileLanded)
        steps = list(functions)
        since = "beginning"

    from dataclasses import replace

    steps = tuple(replace(s, name=names.get(s.name, s.name)) for s in Loading.declaration.steps)
    Loading.declaration = replace(Loading.declaration, steps=steps)
    return Loading


@pytest.fixture
def stage():
    asked.clear()
    stage = Stage(pipeline_of(read, write))
    stage.tell(FileLanded("a.csv"))
    assert asked == ["read", "write"]
    assert len(stage.dead) == 1
    asked.clear()
    return stage


def taken(stage):
    return [(s["name"], s["reused"], s["version"]) for s in stage.runs[0].steps]


def redriven(stage, newer):
    stage.restart(newer, version="2.0")
    stage.redrive()
    assert conservation(stage) == []
    return stage.runs[0].state


def test_a_run_goes_on_in_newer_code_and_each_step_tells_its_version(stage):
    assert redriven(stage, pipeline_of(read, write_well, write_well="write")) == "done"
    assert asked == ["write_well"]
    assert taken(stage) == [("read", True, "stage"), ("write", False, "2.0")]


def test_a_result_is_read_as_the_newer_type_that_has_a_default_for_its_new_field(stage):
    assert redriven(stage, pipeline_of(read_more, write_more, read_more="read", write_more="write")) == "done"
    assert asked == ["write_more 3 0"]


def test_a_result_that_newer_code_cannot_read_is_a_dead_letter_that_nothing_catches_and_nothing_is_lost(stage):
    assert redriven(stage, pipeline_of(read_table, write_table, read_table="read", write_table="write")) == "dead"
    assert asked == []
    letter = stage.dead[-1]
    assert (letter.reason, letter.step) == ("checkpoint.unreadable", "read")
    assert "what read gave is kept as Rows, by version stage, and cannot be read as Table" in letter.message
    assert "give the step another name" in letter.message

    assert redriven(stage, pipeline_of(read_table, write_table)) == "done"
    assert asked == ["read_table", "write_table"], "under another name the step is asked again"


def test_a_step_that_is_new_before_a_kept_one_is_asked_and_the_kept_one_is_not(stage):
    assert redriven(stage, pipeline_of(look, read, write_well)) == "done"
    assert asked == ["look", "write_well"]
    assert taken(stage) == [("look", False, "2.0"), ("read", True, "stage"), ("write_well", False, "2.0")]


def test_a_step_that_is_new_after_a_kept_one_is_asked_before_the_one_that_failed(stage):
    assert redriven(stage, pipeline_of(read, judge, write_well, write_well="write")) == "done"
    assert asked == ["judge", "write_well"]


def test_a_renamed_step_is_another_step_and_is_asked_again(stage):
    assert redriven(stage, pipeline_of(read, write_well, read="read_rows")) == "done"
    assert asked == ["read", "write_well"]
