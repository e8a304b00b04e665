"""Expectations as they are declared, in Python, in a manifest and in their file, and wrong words at their places."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from farandole import Expect, Pipeline, when
from farandole.check import check, check_services
from farandole.errors import DeclarationError
from farandole.expecting import expected_of, note, read_expectations
from farandole.manifest import read_manifest, write_manifest
from farandole.problem import problems_of

SCHEMA = {"type": "record", "name": "Landed", "fields": [{"name": "source", "type": "string"}]}
MANIFEST = """
pipeline: mart
about: A mart.
since: now
when: {one: {event: in.v1}}
steps: [{call: tests.unit.test_expecting:refresh}]
"""


def refresh(one: object) -> None: ...


class Mart(Pipeline):
    """A mart."""

    one = when("in.v1")
    steps = (refresh,)
    since = "now"
    expect = Expect(by="06:30 America/New_York", each="weekday", grace="30m")


def manifest(folder: Path, more: str):
    path = folder / "pipeline.yaml"
    path.write_text(MANIFEST + more)
    return read_manifest(path)


def test_python_and_yaml_expect_the_same(tmp_path):
    one = manifest(tmp_path, "expect: {by: 06:30 America/New_York, each: weekday, grace: 30m}")
    assert one.expect == Mart.declaration.expect == (Expect("06:30 America/New_York", "weekday", "30m"),)


def test_a_pipeline_may_expect_several_things(tmp_path):
    class Several(Pipeline):
        """A mart."""

        one = when("in.v1")
        steps = (refresh,)
        since = "now"
        expect = [Expect("06:30 UTC"), Expect(":20 UTC", "hour")]

    one = manifest(tmp_path, 'expect:\n  - {by: 06:30 UTC}\n  - {by: ":20 UTC", each: hour}\n')
    assert one.expect == Several.declaration.expect


@pytest.mark.parametrize("more", ["expect: {by: 06:30 UTC}", "expect: [{by: 06:30 UTC}, {by: 07:30 UTC, each: XNYS}]"])
def test_what_is_written_reads_back(tmp_path, more):
    one = manifest(tmp_path, more)
    (tmp_path / "again.yaml").write_text(write_manifest(one))
    assert read_manifest(tmp_path / "again.yaml").expect == one.expect


def test_wrong_words_of_a_manifest_are_told_with_line_and_column(tmp_path):
    with pytest.raises(DeclarationError) as told:
        manifest(tmp_path, "expect: {each: day, bye: 06:30 UTC}")
    unknown, lacks = problems_of(told.value)
    assert "unknown key `bye`" in unknown.message
    assert "did you mean `by`" in unknown.hint
    assert lacks.message == "expect does not say by when"
    assert lacks.place.endswith("pipeline.yaml:7:9")


def test_what_is_no_expectation_is_refused_where_it_stands():
    with pytest.raises(DeclarationError) as told:
        type("Bad", (Pipeline,), {"__doc__": "x", "one": when("in.v1"), "steps": (refresh,), "since": "now", "expect": ["06:30"]})  # fmt: skip
    assert "expect is ['06:30']" in str(told.value)
    assert "Expect(by=" in str(told.value)


def test_check_tells_a_wrong_expectation_and_the_next_deadline_of_a_right_one(tmp_path):
    wrong = manifest(tmp_path, "expect: {by: 06:30 America/NewYork}")
    assert [p.message for p in check(wrong) if "zone" in p.message] == [
        "mart: expect: there is no time zone 'America/NewYork'"
    ]
    assert any("expected next by" in p.message for p in check(Mart.declaration) if p.note)


def test_the_same_twice_is_a_mistake(tmp_path):
    twice = manifest(tmp_path, "expect: [{by: 06:30 UTC}, {by: 06:30 UTC, grace: 1h}]")
    assert "mart expects the same twice" in [p.message for p in check(twice)]


FILE = """
expectations:
  weather:
    about: A feed that nobody here produces.
    event: in.v1
    where: source == 'weather'
    by: 06:30 America/New_York
    grace: 30m
"""


def expectations(folder: Path, text: str, schemas=None):
    (folder / "expectations.yaml").write_text(text)
    return read_expectations(folder / "expectations.yaml", schemas)


def test_an_event_that_nobody_produces_yet_is_expected_by_the_file(tmp_path):
    (one,) = expectations(tmp_path, FILE, {"in.v1": SCHEMA})
    assert (one.name, one.event_type, one.where, one.pipeline) == ("weather", "in.v1", "source == 'weather'", "")
    assert one.expect == Expect("06:30 America/New_York", grace="30m")
    assert note(one, datetime(2026, 11, 24, tzinfo=UTC)) == (
        "expected next by 2026-11-24 06:30 EST, about 2026-11-23T05:00Z/2026-11-24T05:00Z"
    )


def test_no_file_expects_nothing_and_a_pipeline_is_expected_beside_the_file(tmp_path):
    assert read_expectations(tmp_path / "none.yaml") == []
    expectations(tmp_path, FILE)
    assert [one.name for one in expected_of([Mart.declaration], tmp_path / "expectations.yaml")] == ["mart", "weather"]


WRONG = {
    "event: other.v1": "there is no event type 'other.v1'",
    "where: origin == 'x'": "origin",
    "where: source ==": "weather: ",
    "by: at dawn": "by is 'at dawn'",
    "each: weekdya": "each is 'weekdya'",
    "evnt: in.v1": "unknown key `evnt`",
}


@pytest.mark.parametrize(("line", "told"), WRONG.items())
def test_wrong_words_of_the_file_are_told_with_their_place(tmp_path, line, told):
    key = line.partition(":")[0]
    kept = [one for one in FILE.splitlines() if not one.strip().startswith(f"{key}:")]
    with pytest.raises(DeclarationError) as error:
        expectations(tmp_path, "\n".join([*kept, f"    {line}"]), {"in.v1": SCHEMA})
    problem = problems_of(error.value)[0]
    assert told in problem.message
    assert problem.hint
    assert "expectations.yaml:" in problem.place


def test_check_reports_on_the_file_when_the_whole_repository_is_asked_about(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("topology", "schemas/avro", "services/mart"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "services/mart/pipeline.yaml").write_text(MANIFEST)
    (tmp_path / "topology/expectations.yaml").write_text(FILE)
    report = {r.service: r for r in check_services(root=tmp_path)}["expectations"]
    assert ["there is no event type" in p.message for p in report.problems] == [True]
    assert "expectations" not in {r.service for r in check_services(["mart"], tmp_path)}
