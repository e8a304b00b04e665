"""The author's words: what a class body or a labelled function means."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import farandole
from farandole import Pipeline, Retry, by, pipeline, resource, step, use, when
from farandole.declaration import Catch, Declaration, Join, Need, Step, Subscription
from farandole.errors import DeclarationError
from farandole.event import EVENT_TYPES, fact
from farandole.find import find_declaration, find_resources, readable, services
from farandole.problem import Mistakes, problems_of


@fact("test.file.landed.v1", key=("uri",))
@dataclass(frozen=True)
class Landed:
    uri: str


@fact("test.table.merged.v1", key=("table",))
@dataclass(frozen=True)
class Merged:
    table: str


@fact("test.file.refused.v1")
@dataclass(frozen=True)
class Refused:
    uri: str


class BadRows(Exception):
    pass


class Staged:
    pass


class Lake:
    pass


@resource(read_only=True)
def lake() -> Lake:
    return Lake()


def refuse_file(file: Landed, error: BadRows) -> Refused:
    return Refused(file.uri)


@step(timeout="5m", catch={BadRows: refuse_file})
def stage(file: Landed, lake: Lake) -> Staged:
    return Staged()


@step(timeout="10m", retry=Retry(5, only=KeyError, backoff="5s..5m"))
async def merge(staged: Staged) -> Merged | None:
    return None


class LoadOrders(Pipeline):
    """Merge every orders file.

    All of them.
    """

    file = when(Landed, where="uri != 'x'")
    steps = [stage, merge]
    since = "now"
    once = "uri"
    slots = 3


def test_a_class_body_becomes_a_frozen_value():
    here = f"{__name__}:"
    assert LoadOrders.declaration == Declaration(
        name="load-orders",
        about="Merge every orders file.\n\nAll of them.",
        since="now",
        subscriptions=(Subscription("file", "test.file.landed.v1", "uri != 'x'"),),
        steps=(
            Step("stage", f"{here}stage", timeout=300.0, catch=(Catch("BadRows", f"{here}refuse_file"),)),
            Step("merge", f"{here}merge", Retry(5, only="KeyError", backoff="5s..5m"), timeout=600.0),
        ),
        once=("uri",),
        slots=3,
        emits=("test.file.refused.v1", "test.table.merged.v1"),
    )


def test_every_part_knows_the_line_it_was_written_on():
    text = Path(__file__).read_text(encoding="utf-8").splitlines()
    declaration = LoadOrders.declaration
    lines = [int(place.rpartition(":")[2]) for place in (declaration.source, declaration.subscriptions[0].place)]
    assert text[lines[0] - 1].startswith("class LoadOrders")
    assert "file = when" in text[lines[1] - 1]


def test_a_labelled_function_stays_the_function():
    assert isinstance(stage(Landed("a"), Lake()), Staged)
    assert lake.__name__ == "lake"


def test_signals_join_by_fields_within_a_time():
    class Delays(Pipeline):
        flights = when(Merged, where="table == 'flights'")
        weather = when(Merged, where="table == 'weather'")
        join = by("table", "day", within="6h", where="weather.a == flights.a")
        steps = [merge]
        since = "beginning"

    assert Delays.declaration.join == Join(("table", "day"), 21_600.0, "weather.a == flights.a")
    assert [s.signal for s in Delays.declaration.subscriptions] == ["flights", "weather"]


def test_a_step_names_what_it_depends_on_alone_or_with_the_errors_that_mean_that_it_is_down():
    def needs(written):
        return use("a.b", needs=written).needs

    assert needs("orders-api") == needs(["orders-api"]) == needs({"orders-api": None}) == (Need("orders-api"),)
    told = (Need("orders-api", ("ConnectionError", "ApiDown")), Need("stock"))
    assert needs({"orders-api": (ConnectionError, "ApiDown"), "stock": ()}) == told


def test_one_function_is_a_pipeline_of_one_step():
    @pipeline(when=Landed, where="uri == 'a'", once="uri", since="now", owner="team")
    async def count_files(file: Landed) -> Merged:
        """Count."""
        return Merged(file.uri)

    declaration = count_files.declaration
    assert (declaration.name, declaration.about, declaration.owner) == ("count-files", "Count.", "team")
    assert declaration.subscriptions == (Subscription("file", "test.file.landed.v1", "uri == 'a'"),)
    assert [s.name for s in declaration.steps] == ["count_files"]


def test_a_ready_made_step_stands_among_functions():
    class Land(Pipeline):
        file = when(Landed)
        steps = [use("rows.check", {"b": [1, 2], "a": {"c": []}}, timeout="5m", catch={BadRows: "file.refuse"}), merge]
        since = "now"

    first = Land.declaration.steps[0]
    assert (first.name, first.call, first.use, first.timeout) == ("rows.check", "", "rows.check", 300.0)
    assert first.options == (("a", {"c": ()}), ("b", (1, 2)))
    assert first.catch == (Catch("BadRows", "file.refuse"),)


@pytest.mark.parametrize(
    ("annotation", "emits"),
    [
        (Merged, ("test.table.merged.v1",)),
        (Merged | None, ("test.table.merged.v1",)),
        (list[Merged], ("test.table.merged.v1",)),
        (Sequence[Merged | Refused], ("test.file.refused.v1", "test.table.merged.v1")),
        (tuple[Merged, Refused], ("test.file.refused.v1", "test.table.merged.v1")),
        (dict[str, Merged], ()),
        (Staged, ()),
        (None, ()),
    ],
)
def test_what_a_pipeline_emits_follows_from_its_annotations(annotation, emits):
    def one(file):
        return None

    one.__annotations__ = {"file": Landed, "return": annotation}

    class Some(Pipeline):
        file = when(Landed)
        steps = [one]
        since = "now"

    assert Some.declaration.emits == emits


def declare(**words: Any) -> Declaration:
    """A pipeline class with these words; the usual ones are there unless they are None."""
    usual = {"file": when(Landed), "steps": [stage], "since": "now"}
    body = {name: word for name, word in (usual | words).items() if word is not None}
    return type("Some", (Pipeline,), body).declaration


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ({"since": None}, "no `since`", '"beginning"'),
        ({"since": "yesterday"}, "since is 'yesterday'", "zone"),
        ({"since": "2013-01-01T00:00"}, "since is", "zone"),
        ({"file": None}, "listens for nothing", "when("),
        ({"steps": None}, "no steps", "steps ="),
        ({"steps": stage}, "steps is no list", "steps ="),
        ({"steps": [lambda x: x]}, "has no name", "def"),
        ({"steps": [stage, stage]}, "stands there twice", "its own"),
        ({"ordering": "strict"}, "ordering is 'strict'", '"key" or "none"'),
        ({"on_rewind": "skip"}, "on_rewind is 'skip'", '"replay" or "ignore"'),
        ({"on_conflict": "skip"}, "on_conflict is 'skip'", '"dead" or "drop"'),
        ({"slots": 0}, "slots is 0", "from 1"),
        ({"slots": True}, "slots is True", "from 1"),
        ({"once": "a b"}, "no field", "field"),
        ({"name": "Big Name"}, "cannot be a pipeline's name", "mart-delays"),
        ({"name": "a" * 201}, "cannot be a pipeline's name", "mart-delays"),
        ({"step": [stage]}, "`step` that means nothing", "`steps`"),
        ({"other": Landed}, "`other` that means nothing", "other = when(Landed)"),
        ({"method": stage}, "is a method", "outside the class"),
        ({"run": when(Landed), "file": None}, "`run` cannot be a signal's name", "what it is"),
        ({"more": when(Merged)}, "several signals", "join = by"),
        ({"join": by("uri", within="1h")}, "one signal only", "remove the join"),
        ({"more": when(Merged), "join": by(within="1h")}, "joins by no field", "by("),
        ({"more": when(Merged), "join": by("uri", within=0)}, "within 0 s", "6h"),
        ({"more": when(Merged), "join": by("uri", within="1h", where="a +")}, "invalid syntax", "compare"),
        ({"file": when(Landed, where="f(uri)")}, "a call", "compare"),
        ({"steps": [use("a.b", timeout="0s")]}, "timeout is 0 s", "10m"),
        ({"steps": [use("a.b", retry=0)]}, "0 attempts", "from 1"),
        ({"steps": [use("a.b", retry=Retry(2, backoff="9s..1s"))]}, "no range of spans", "1s..2m"),
        ({"steps": [use("a.b", retry=Retry(2, backoff="soon"))]}, "no range of spans", "1s..2m"),
        ({"steps": [use("a.b", effect="idempotant")]}, "effect is 'idempotant'", "`idempotent`"),
        ({"steps": [use("a.b", effect="verify")]}, "without a check", "looks whether"),
        ({"steps": [use("a.b", check=merge)]}, "without effect", "verify"),
        ({"steps": [use("a.b", needs="Orders API")]}, "cannot be a dependency's name", "small letters"),
        ({"steps": [use("a.b", needs="retries")]}, "`retries` cannot be a dependency's name", "small letters"),
        ({"steps": [use("a.b", needs=["orders", "stock"])]}, "needs orders and stock", "needs={'orders': ApiDown"),
        (
            {"steps": [use("a.b", needs={"a": KeyError}, retry=Retry(never=KeyError))]},
            "retry never names it",
            "one place",
        ),
        ({"steps": [use("a.b", needs={"a": KeyError}, catch={KeyError: "f.g"})]}, "catch names it too", "one place"),
        ({"guard": "maybe"}, "guard is 'maybe'", '"on" or "off"'),
    ],
)
def test_a_mistake_is_told_with_its_place_and_a_hint(words, message, hint):
    with pytest.raises(DeclarationError) as caught:
        declare(**words)
    (problem,) = problems_of(caught.value)
    assert message in problem.message
    assert hint in problem.hint
    assert "test_pipeline.py:" in problem.place


def test_all_mistakes_are_told_at_once():
    with pytest.raises(Mistakes) as caught:
        declare(since=None, slots=0, stepz=[stage])
    assert len(caught.value.problems) == 3
    assert str(caught.value).count("hint") == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: when(Staged), "Staged is no event class"),
        (lambda: by("a", within="soon"), "no span of time"),
        (lambda: use("a.b", not_null=["id"]), "`not_null` that means nothing"),
        (lambda: use("a.b", timeout="soon"), "no span of time"),
        (lambda: use("a.b", retry="often"), "retry is 'often'"),
        (lambda: use("a.b", catch={"BadRows": merge}), "no exception class"),
        (lambda: use("a.b", needs={"orders": 5}), "needs is {'orders': 5}"),
        (lambda: pipeline(when=Landed, since="now")(merge), "no parameters that take test.file.landed.v1"),
    ],
)
def test_a_word_that_cannot_be_read_is_refused_where_it_stands(wrong, message):
    with pytest.raises(DeclarationError, match=message) as caught:
        wrong()
    assert "test_pipeline.py:" in caught.value.place


def test_an_annotation_that_is_not_there_at_run_time_is_refused():
    def lost(file: Landed) -> None: ...

    lost.__annotations__ = {"file": "Nowhere"}
    with pytest.raises(DeclarationError, match="Nowhere") as caught:
        declare(steps=[lost])
    assert "TYPE_CHECKING" in caught.value.hint


def test_resources_are_found_where_the_steps_live():
    assert find_resources(LoadOrders.declaration) == [lake]


def test_the_package_gives_the_words_and_nothing_else():
    assert set(farandole.__all__) == {*farandole._HOME, "__version__"}
    assert all(getattr(farandole, name) for name in farandole.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        farandole.nothing  # noqa: B018


def test_the_decorator_is_not_hidden_by_its_module():
    import farandole.pipeline

    assert callable(farandole.pipeline)


@pytest.fixture
def platform(tmp_path, monkeypatch):
    """A folder with services/, in which services can be written; it is forgotten afterwards."""
    before, events = set(sys.modules), dict(EVENT_TYPES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def forget() -> None:
        for name in set(sys.modules) - before:
            del sys.modules[name]
        for name in [n for n in sys.modules if n.partition(".")[0] in ("services", "schemas")]:
            monkeypatch.delitem(sys.modules, name)

    def write(path: str, text: str) -> None:
        file = tmp_path / "services" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    forget()
    yield write
    forget()
    EVENT_TYPES.clear()
    EVENT_TYPES.update(events)


CODE = """
from farandole import Pipeline, when
def a(file: int) -> None: ...
class {name}(Pipeline):
    "About."
    file = when("some.thing.happened.v1")
    steps = [a]
    since = "now"
"""


@pytest.mark.parametrize("target", ["load_all", "load-all", "services/load_all/", "services.load_all.pipeline:LoadAll"])
def test_a_service_is_found_by_its_folder_or_by_its_object(platform, target):
    platform("load_all/pipeline.py", CODE.format(name="LoadAll"))
    assert find_declaration(target).name == "load-all"


@pytest.mark.parametrize(
    ("files", "target", "message", "hint"),
    [
        ({}, "load", "no service `load`", "write its"),
        ({"load_all/pipeline.py": CODE.format(name="A")}, "load_al", "no service `load_al`", "`load_all`"),
        ({"a/pipeline.py": CODE.format(name="A"), "a/pipeline.yaml": ""}, "a", "declared twice", "not both"),
        ({"a/pipeline.py": "x = 1"}, "a", "declares no pipelines", "one folder"),
        (
            {"a/pipeline.py": CODE.format(name="A") + CODE.format(name="B")},
            "a",
            "declares 2 pipelines",
            "module:object",
        ),
        ({"a/pipeline.py": "import nowhere_at_all"}, "a", "nowhere_at_all", "traceback"),
        ({"a/pipeline.py": "1 / 0"}, "a", "ZeroDivisionError", "traceback"),
        ({"a/pipeline.py": "def ("}, "a", "SyntaxError", "traceback"),
        ({"a/pipeline.py": "x = 1"}, "services.a.pipeline:x", "no pipeline", "Pipeline"),
        ({}, "nowhere_at_all:X", "no module nowhere_at_all", "module:function"),
    ],
)
def test_a_service_that_cannot_be_found_is_told_with_a_hint(platform, files, target, message, hint):
    for path, text in files.items():
        platform(path, text)
    with pytest.raises(DeclarationError) as caught:
        find_declaration(target)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_of_many_services_those_that_can_be_read_are_there_and_of_each_other_why_not(platform):
    for name, text in {"a": CODE.format(name="A"), "b": "1 / 0", "c": CODE.format(name="C"), "d": "x = 1"}.items():
        platform(f"{name}/pipeline.py", text)

    found, wrong = readable(services(), find_declaration)

    assert {name: one.name for name, one in found.items()} == {"a": "a", "c": "c"}
    assert list(wrong) == ["b", "d"]
    assert "ZeroDivisionError" in wrong["b"]
    assert "services/d/pipeline.py:1" in wrong["d"]


def test_the_line_that_stops_an_import_is_named(platform):
    platform("a/pipeline.py", "x = 1\n\n1 / 0\n")
    with pytest.raises(DeclarationError) as caught:
        find_declaration("a")
    assert caught.value.place == "services/a/pipeline.py:3"
