"""The YAML notation: the same value as the Python class, and every mistake with its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from farandole import Pipeline, Retry, by, step, use, when
from farandole.declaration import Declaration
from farandole.errors import DeclarationError
from farandole.manifest import read_manifest, span, write_manifest
from farandole.problem import problems_of

LANDED, MERGED, SIGNAL = "lake.file.landed.v1", "lake.table.merged.v1", "lake.file.quarantined.v1"


class BadRows(Exception):
    pass


class TableBusy(Exception):
    pass


def refuse(file: object, error: BadRows) -> None: ...


def looks(attempt: object) -> None: ...


@step(timeout="5m", catch={BadRows: refuse})
def stage(file: object) -> None: ...


@step(timeout="1h30m", retry=Retry(5, only=TableBusy, never=(KeyError, "OSError"), backoff="5s..5m"))
def merge(file: object) -> None: ...


@step(needs={"orders-api": (ConnectionError, "TableBusy"), "stock": ()})
def order(file: object) -> None: ...


@step(needs="stock")
def reserve(file: object) -> None: ...


@step(retry=1, effect="verify", check=looks)
def announce(file: object) -> None: ...


class LoadOrders(Pipeline):
    """Merge every orders file of the ERP into sales.orders."""

    file = when(LANDED, where="source == 'erp' and format == 'csv'")
    steps = [stage, merge]
    since = "now"


LOAD_ORDERS = f"""
pipeline: load-orders
about: Merge every orders file of the ERP into sales.orders.
since: now
when:
  file: {{event: lake.file.landed.v1, where: source == 'erp' and format == 'csv'}}
steps:
  - call: {__name__}:stage
    timeout: 5m
    catch: {{BadRows: "{__name__}:refuse"}}
  - call: {__name__}:merge
    timeout: 90m
    retry: {{times: 5, only: TableBusy, never: [KeyError, OSError], backoff: 5s..5m}}
"""


class LandCustomers(Pipeline):
    """Merge every customers file of the CRM into crm.customers."""

    file = when(LANDED)
    steps = [
        use("file.stage"),
        use("rows.check", {"not_null": ["id"], "at_least": 1, "share": 0.5}, catch={BadRows: "file.quarantine"}),
        use("table.merge", {"table": "crm.customers", "deep": {"a": True, "b": None}}, timeout=600, name="merge"),
    ]
    since = "2013-01-01T00:00Z"
    owner = "team-crm"
    once = ("uri", "digest")
    slots = 2
    ordering = "none"
    on_rewind = "ignore"
    on_conflict = "drop"
    emits = [MERGED, SIGNAL]


LAND_CUSTOMERS = """
pipeline: land-customers
about: Merge every customers file of the CRM into crm.customers.
owner: team-crm
since: 2013-01-01T00:00Z
once: [uri, digest]
when:
  file: {event: lake.file.landed.v1}
steps:
  - use: file.stage
  - use: rows.check
    with: {not_null: [id], at_least: 1, share: 0.5}
    catch: {BadRows: file.quarantine}
  - use: table.merge
    name: merge
    with: {table: crm.customers, deep: {a: true, b: null}}
    timeout: 600
emits: [lake.table.merged.v1, lake.file.quarantined.v1]
scale: {slots: 2, ordering: none}
on_rewind: ignore
on_conflict: drop
"""


class Delays(Pipeline):
    """Refresh."""

    flights = when(MERGED, where="table == 'flights'")
    weather = when(MERGED, where="table == 'weather'")
    join = by("interval", "day", within="6h", where="weather.region == flights.region")
    steps = [announce]
    since = "beginning"


DELAYS = f"""
pipeline: delays
about: Refresh.
since: beginning
when:
  flights: {{event: lake.table.merged.v1, where: table == 'flights'}}
  weather: {{event: lake.table.merged.v1, where: "table == 'weather'"}}
join: {{by: [interval, day], within: 6h, where: weather.region == flights.region}}
steps:
  - {{call: "{__name__}:announce", retry: 1, effect: verify, check: "{__name__}:looks"}}
"""


class Ordering(Pipeline):
    """Order what is missing."""

    file = when(LANDED)
    steps = [order, reserve]
    since = "now"
    guard = "off"


ORDERING = f"""
pipeline: ordering
about: Order what is missing.
since: now
when: {{file: {{event: lake.file.landed.v1}}}}
steps:
  - {{call: "{__name__}:order", needs: {{orders-api: [ConnectionError, TableBusy], stock: }}}}
  - {{call: "{__name__}:reserve", needs: [stock]}}
guard: "off"
"""

BOTH = [(Ordering, ORDERING), (LoadOrders, LOAD_ORDERS), (LandCustomers, LAND_CUSTOMERS), (Delays, DELAYS)]


def read(folder: Path, text: str) -> Declaration:
    path = folder / "pipeline.yaml"
    path.write_text(text, encoding="utf-8")
    return read_manifest(path)


@pytest.mark.parametrize(("coded", "written"), BOTH, ids=lambda v: getattr(v, "__name__", ""))
def test_both_notations_are_the_same_value(tmp_path, coded, written):
    assert read(tmp_path, written) == coded.declaration


@pytest.mark.parametrize(("coded", "_written"), BOTH, ids=lambda v: getattr(v, "__name__", ""))
def test_what_is_written_reads_back_as_the_same_value(tmp_path, coded, _written):
    assert read(tmp_path, write_manifest(coded.declaration)) == coded.declaration


def test_a_module_beside_the_manifest_needs_no_package(tmp_path):
    folder = tmp_path / "services" / "load_orders"
    folder.mkdir(parents=True)
    (folder / "handlers.py").touch()
    text = "pipeline: load-orders\nsince: now\nwhen: {a: {event: b.c.d.v1}}\nsteps: [{call: 'handlers:stage'}]"
    declaration = read(folder, text)
    assert declaration.steps[0].call == "services.load_orders.handlers:stage"
    assert "call: handlers:stage" in write_manifest(declaration).replace("'", "")
    assert read(folder, write_manifest(declaration)) == declaration


BASE = "pipeline: a\nsince: now\nwhen: {f: {event: b.c.d.v1}}\nsteps: [{use: x.y}]\n"


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("", "1", "it is empty", "pipeline:"),
        ("- a\n", "1:1", "is no mapping", "key: value"),
        ("a: [b\n", "2:1", "no YAML", "quotes"),
        ("a: b: c\n", "1:5", "no YAML", "quotes"),
        ("a: 1\n---\nb: 2\n", "2:1", "no YAML", "quotes"),
        ("a: \x07\n", "1", "no YAML", "remove"),
        (BASE + "on: x\n", "5:1", "`on` cannot be a key", '"on"'),
        (BASE + "abuot: x\n", "5:1", "unknown key `abuot`", "`about`"),
        (BASE + "since: now\n", "5:1", "`since` stands twice", "keep one"),
        (BASE + "scale: {slots: many}\n", "5:16", "no whole number", "8"),
        (BASE + "scale: {slot: 1}\n", "5:9", "unknown key `slot`", "`slots`"),
        (BASE + "scale: 4\n", "5:8", "scale is no mapping", "slots"),
        (BASE + "owner: {a: b}\n", "5:8", "owner is no text", "one value"),
        (BASE + "owner: no\n", "5:8", "`no` is true or false", '"no"'),
        (BASE.replace("event", "evnt"), "3:12", "unknown key `evnt`", "`event`"),
        (BASE.replace("{event: b.c.d.v1}", "b.c.d.v1"), "3:11", "is no mapping", "f: {event: b.c.d.v1}"),
        (BASE.replace("{event: b.c.d.v1}", "{where: a}"), "3:11", "names no event", "event:"),
        (BASE.replace("[{use: x.y}]", "4"), "4:8", "steps is no list", "dash"),
        (BASE.replace("{use: x.y}", "'h:s'"), "4:9", "`h:s` is no step", "call: h:s"),
        (BASE.replace("use: x.y", "name: s"), "4:9", "either `call` or `use`", "module:function"),
        (BASE.replace("use: x.y", "use: x.y, call: 'a:b'"), "4:9", "either `call` or `use`", "module:function"),
        (BASE.replace("use: x.y", "call: stage"), "4:16", "`stage` names no function", "handlers:merge"),
        (BASE.replace("use: x.y", "call: 'a:b', with: {c: 1}"), "4:29", "without `use`", "ready-made"),
        (BASE.replace("use: x.y", "use: x.y, with: 3"), "4:26", "with is no mapping", "with: {"),
        (BASE.replace("use: x.y", "use: x.y, with: {land: no}"), "4:33", "`no` is true or false", '"no"'),
        (BASE.replace("use: x.y", "use: x.y, with: &a {b: *a}"), "4:26", "deeper than", "anchor"),
        (BASE.replace("use: x.y", "use: x.y, timeout: 5x"), "4:29", "no span", "10m"),
        (BASE.replace("use: x.y", "use: x.y, retry: {tims: 3}"), "4:28", "unknown key `tims`", "`times`"),
        (BASE.replace("use: x.y", "use: x.y, retry: often"), "4:27", "no whole number", "3"),
        (BASE.replace("use: x.y", "use: x.y, catch: {E: f}"), "4:31", "`f` names no function", "module:function"),
        (BASE + "join: {by: a}\n", "5:7", "within which time", "6h"),
        (BASE.replace("now", "soon"), "1", "since is 'soon'", "beginning"),
        (BASE.replace("since: now\n", ""), "1", "no `since`", "beginning"),
    ],
)
def test_a_mistake_is_told_with_its_line_column_and_hint(tmp_path, text, place, message, hint):
    with pytest.raises(DeclarationError) as caught:
        read(tmp_path, text)
    problem = problems_of(caught.value)[0]
    assert message in problem.message
    assert hint in problem.hint
    assert problem.place == f"{tmp_path / 'pipeline.yaml'}:{place}"


def test_all_mistakes_of_a_manifest_are_told_at_once(tmp_path):
    with pytest.raises(DeclarationError) as caught:
        read(tmp_path, BASE.replace("now", "soon") + "on: x\nscale: {slots: -1, ordering: keys}\n")
    assert len(problems_of(caught.value)) == 4


def test_a_quoted_word_is_a_text(tmp_path):
    declaration = read(tmp_path, BASE.replace("use: x.y", "use: x.y, with: {land: 'no', m: '1', 'on': -2.5e3}"))
    assert declaration.steps[0].options == (("land", "no"), ("m", "1"), ("on", -2500.0))


def test_a_file_that_is_no_text_or_not_there_is_told(tmp_path):
    path = tmp_path / "pipeline.yaml"
    with pytest.raises(DeclarationError, match="cannot be read"):
        read_manifest(path)
    path.write_bytes(b"pipeline: \xff\xfe")
    with pytest.raises(DeclarationError, match="not UTF-8"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("seconds", "text"), [(600.0, "10m"), (5400.0, "90m"), (0.25, "250ms"), (86_400.0, "1d"), (0.0001, 0.0001)]
)
def test_a_span_is_written_as_a_person_writes_it(seconds, text):
    assert span(seconds) == text
