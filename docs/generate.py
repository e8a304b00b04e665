# ruff: noqa: INP001, T201 - a script, and it says what it did
"""Writes the pages of docs/reference that follow from the code: settings, command line, ledger entry.

``python docs/generate.py`` writes them, ``--check`` says which are stale. A test calls the same functions.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from farandole.cli import cli
from farandole.ledger.views import VIEWS
from farandole.settings import _NAMED as NAMED
from farandole.settings import CLIENT_PROPERTIES, Settings
from farandole.topics import CONTROL, EXPECTATIONS, LEDGER, own_schemas

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/reference"
NOTE = "<!-- Written by docs/generate.py: do not edit, write it again. -->\n"

ABOUT = {
    "kafka_bootstrap_servers": "The brokers, `host:port`, comma-separated.",
    "schema_registry_url": "The registry's Confluent-compatible API.",
    "schema_registry_basic_auth_user_info": "`user:password` for the registry.",
    "lake": "The folder or bucket (any `fsspec` URL) of the lake.",
    "stack": "`local` starts real servers, `external` takes those that are named, `containers` starts them in Docker.",
    "state_dir": "Where the embedded stack, the books and the local lake stand.",
    "maven_mirror": "Where the servers' jars are fetched from, if not Maven Central.",
    "group_protocol": "How a group shares partitions: KIP-848's `consumer`, or `classic` for brokers before 4.0.",
}
"""What stands here is not said by a docstring beside the setting."""

DEFAULTS = {
    "kafka_bootstrap_servers": "the embedded stack that runs",
    "schema_registry_url": "the embedded stack that runs",
    "database_url": "the embedded PostgreSQL if it runs, else `sqlite:///.farandole/books/{pipeline}.db`",
    "lake": "`.farandole/lake`",
}

BESIDE = (
    ("FARANDOLE_CONFIG", "`farandole.toml`", "The file that is read below the environment."),
    ("FARANDOLE_SCHEMAS", "`schemas/avro`", "The folder of the reader schemas."),
    ("FARANDOLE_SOURCES", "`topology/sources`", "The folder of the declared sources."),
    ("FARANDOLE_SCHEDULES", "`topology/schedules.yaml`", "The [timetable](schedules.md)."),
    (
        "FARANDOLE_EXPECTATIONS",
        "`topology/expectations.yaml`",
        "What [must have come](../howto/notice-what-did-not-happen.md).",
    ),
    ("FARANDOLE_CLUSTER", "`local`", "The file of `topology/clusters/` that `farandole topology` takes."),
    ("FARANDOLE_ACTOR", "the user and the machine", "Who gives a command, as the audit tells."),
    ("FARANDOLE_VERSION", "the library's", "The version that ledger entries and dead letters tell."),
    ("FARANDOLE_CACHE", "the user's cache", "Where the embedded servers' programs are kept."),
    ("FARANDOLE_RECONCILE_EVERY", "`60s`", "From the end of a sweep of the reconciler to its next."),
    ("FARANDOLE_BEAT_EVERY", "`10s`", "From one beat to the next of the services that watch over others."),
    ("FARANDOLE_ANNOUNCE_TIMES", "`1`", "How often `landing` tells each file; the demo says 2."),
    ("FARANDOLE_DEBUG", "unset", "Set: errors come with their traceback, as with `--debug`."),
    ("FARANDOLE_KILL_AT", "unset", "A [kill point](kill-points.md) at which the process kills itself. For tests."),
    ("FARANDOLE_STOP_AT", "unset", "The same with SIGSTOP, which makes a zombie. For tests."),
    ("FARANDOLE_TERM_AT", "unset", "The same with SIGTERM: told to end just there. For tests."),
)


def settings_page() -> str:
    """Every setting, its variable, its default."""
    said = {**_docstrings(), **ABOUT}
    rows = [f"| `{_variable(n)}` | `{n}` | {_default(n, f)} | {said[n]} |" for n, f in Settings.model_fields.items()]
    beside = [f"| `{name}` | {default} | {what} |" for name, default, what in BESIDE]
    return "\n".join(
        [
            NOTE,
            "# Settings",
            "",
            "A command's flag stands before the environment, the environment before `farandole.toml`, and that before",
            "the default.",
            "",
            "| variable | in `farandole.toml` | default | what it is |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Beside them",
            "",
            "| variable | default | what it is |",
            "|---|---|---|",
            *beside,
            "",
            "## How the Kafka clients are let in",
            "",
            "These properties of librdkafka are taken from the environment under `KAFKA_` and their name in capitals",
            "(`security.protocol` is `KAFKA_SECURITY_PROTOCOL`), or from the table `[kafka]` of `farandole.toml`.",
            "Others are not: things that are no client's set `KAFKA_…` variables too.",
            "",
            *(f"- `{name}`" for name in CLIENT_PROPERTIES),
            "",
        ]
    )


def _docstrings() -> dict[str, str]:
    """The docstring below each field of the class, which Python itself does not keep."""
    tree = ast.parse((ROOT / "farandole/settings.py").read_text(encoding="utf-8"))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Settings").body
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            said = ast.literal_eval(text.value)
            found[field.target.id] = " ".join(said.replace("``", "`").split())
    return found


def _variable(name: str) -> str:
    return NAMED.get(name, f"FARANDOLE_{name.upper()}")


def _default(name: str, field: Any) -> str:
    if name in DEFAULTS:
        return DEFAULTS[name]
    default = field.get_default(call_default_factory=True)
    return f"`{default}`" if default or default == 0 else "none"


def cli_page() -> str:
    """The help of every command, as it is printed."""
    parts = [
        NOTE,
        "# Command line",
        "",
        "Every list and show takes `-o table|json|jsonl`: a table on a terminal, JSON lines elsewhere. Exit codes:",
        "0 fine, 1 error, 2 differences, 3 attention needed, 64 usage, 130 interrupted.",
        "",
    ]
    for path, command in _commands(cli, ["farandole"]):
        context = click.Context(
            command, info_name=" ".join(path), terminal_width=100, help_option_names=["-h", "--help"]
        )
        parts += [f"## `{' '.join(path)}`", "", "```text", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(parts)


def _commands(command: click.Command, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _commands(found, [*path, name])


def ledger_page() -> str:
    """The fields of a ledger entry, from its schema."""
    schema = own_schemas()[LEDGER]
    parts = [
        NOTE,
        "# Ledger entry",
        "",
        "The topic `farandole.ledger.v1` (`compact,delete`) holds the newest entry of every run, range and fact. Its",
        "records are Avro in Confluent's wire format; the record key is the entry's `id`, and all entries of a",
        "pipeline stand in one partition, that of its group's name. Entries are written in the transaction that holds",
        "what they tell of: who reads with `isolation.level=read_committed` never reads of what did not happen.",
        "",
        *_table(schema),
    ]
    for record in _records(schema):
        parts += ["", f"## `{record['name'].rpartition('.')[2]}`", "", record.get("doc", ""), "", *_table(record)]
    return "\n".join([*parts, ""])


def control_page() -> str:
    """The fields of a command, from its schema."""
    return "\n".join(
        [
            NOTE,
            "# Command",
            "",
            "What is wanted of running services stands on `farandole.control.v1` (`compact`): of the commands with one",
            "id the newest stands. `pause` and `resume` have the id `pipeline:<pipeline>`, so that the newest of them",
            "counts; `cancel`, `release` and `reschedule` have `run:<run id>`; `plan` and `progress` are for tools and",
            "begin with `plan:`; an `order` to process events again has `order:<id>`. A tombstone takes a command",
            "back. `farandole.audit.v1` (`delete`, kept for ever) has",
            "every command that was given, written in the same transaction. Both have records of this shape, Avro in",
            "Confluent's wire format; the record key is the `id`.",
            "",
            *_table(own_schemas()[CONTROL]),
            "",
        ]
    )


def expectation_page() -> str:
    """The fields of an expectation, from its schema."""
    schema = own_schemas()[EXPECTATIONS]
    return "\n".join(
        [
            NOTE,
            "# Expectation",
            "",
            "The topic `farandole.expectations.v1` (`compact,delete`, one partition) has a record for every deadline,",
            "Avro in Confluent's wire format; the record key is the `id`. Records of one id are folded in the order of",
            "the topic: `state` goes from `pending` to `missed` to one of `met`, `met_late`, `waived`, of equals the",
            "first stays; `telling` with `attempt` goes forward in the same way, by itself. A tombstone takes a row",
            "that was not due off the books.",
            "",
            *_table(schema),
            "",
            "Both times are a record of `start` and `end`, half-open.",
            "",
        ]
    )


def _table(record: dict[str, Any]) -> list[str]:
    rows = [f"| `{f['name']}` | {_type(f['type'])} | {f.get('doc', '')} |" for f in record["fields"]]
    return ["| field | type | what it is |", "|---|---|---|", *rows]


def _type(avro: Any) -> str:
    if isinstance(avro, list):
        return " or ".join(_type(one) for one in avro)
    if isinstance(avro, str):
        return avro.rpartition(".")[2]
    match avro["type"]:
        case "array":
            return f"list of {_type(avro['items'])}"
        case "map":
            return f"map of {_type(avro['values'])}"
        case "record":
            return f"`{avro['name'].rpartition('.')[2]}`"
    return str(avro.get("logicalType", avro["type"]))


def _records(avro: Any) -> Iterator[dict[str, Any]]:
    """The records inside a schema, in order of their first use."""
    if isinstance(avro, list):
        for one in avro:
            yield from _records(one)
    elif isinstance(avro, dict):
        for field in avro.get("fields", ()):
            inner = field["type"]
            for one in inner if isinstance(inner, list) else [inner]:
                one_record = one.get("items", one) if isinstance(one, dict) else one
                if isinstance(one_record, dict) and one_record.get("type") == "record":
                    yield one_record
                    yield from _records(one_record)


EXAMPLES = {
    "What is dead, by cause:": """
select pipeline, error, fingerprint, count(*) as letters
from runs where state = 'dead'
group by pipeline, error, fingerprint order by letters desc
""",
    "What is missing:": """
select name, deadline, interval_start from expectations where state = 'missed' order by deadline
""",
    "How long the runs of a pipeline take:": """
select pipeline, count(*) as runs, avg(seconds) as usual, max(seconds) as longest
from runs where state = 'done' group by pipeline
""",
    "What a pipeline refuses:": """
select pipeline, reason, sum(events) as events
from ranges where outcome = 'filtered' group by pipeline, reason
""",
    "What came of an event:": """
select r.pipeline, r.id, r.state from runs r join events e on e.run_id = r.id
where e.direction = 'in' and e.event_id = '0193a1c0-0000-7000-8000-000000000001'
""",
}


def views_page() -> str:
    """The views that `farandole sql` asks, with their columns."""
    parts = [
        NOTE,
        "# Views",
        "",
        "`farandole sql` asks them, and any client of the projection's database can: they are views in it. A column",
        "may be added; one that is here keeps its name and its meaning. Times are text in RFC 3339 in SQLite and",
        "`timestamptz` in PostgreSQL. `farandole ledger export FOLDER` writes each as a Parquet file, for DuckDB or a",
        "notebook.",
        "",
    ]
    for about, asked in EXAMPLES.items():
        parts += [about, "", "```sql", asked.strip(), "```", ""]
    for view in VIEWS:
        parts += [f"## {view.name}", "", view.about, "", "| column | what it holds |", "|---|---|"]
        parts += [f"| `{one.name}` | {one.about} |" for one in view.columns]
        parts += [""]
    return "\n".join(parts)


WRITERS = {
    "settings.md": settings_page,
    "cli.md": cli_page,
    "ledger.md": ledger_page,
    "control.md": control_page,
    "expectation.md": expectation_page,
    "views.md": views_page,
}
"""The pages that are written here."""


def stale() -> list[str]:
    """The pages that are not what the code says."""
    return [n for n, w in WRITERS.items() if not (PAGES / n).exists() or (PAGES / n).read_text("utf-8") != w()]


if __name__ == "__main__":
    old = stale()
    if "--check" not in sys.argv:
        for page in old:
            (PAGES / page).write_text(WRITERS[page](), encoding="utf-8")
    print("\n".join(f"docs/reference/{page}" for page in old) or "nothing to do")
    sys.exit(2 if old and "--check" in sys.argv else 0)
