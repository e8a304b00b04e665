"""`farandole runs list|show` and `farandole lineage`: what ran, how it went, what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import emit_one, lasted, local, moment_of, projection, tell
from farandole.cli.output import emit, output_option
from farandole.cli.steer import cancel, release, reschedule
from farandole.errors import FINE

if TYPE_CHECKING:
    from farandole.ledger.lineage import Key, Lineage

_STATES = ["done", "caught", "dead", "parked", "waiting", "uncertain", "claimed", "resolved", "expired", "joined"]


@click.group()
def runs() -> None:
    """Runs: which there were, and how each went; and what is wanted of those that have not ended.

    Read from the projection of the ledger.
    """


for command in (cancel, release, reschedule):
    runs.add_command(command)


@runs.command("list")
@click.option("--pipeline", default="", help="Only of this pipeline.")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only in this state; repeatable.")
@click.option("--since", default="", metavar="SPAN|TIME", help="Only those recorded since: 2h, 1d, 2013-01-01T06:00Z.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many, newest first.")
@output_option
def list_runs(pipeline: str, states: tuple[str, ...], since: str, limit: int, output: str | None) -> int:
    """The newest runs.

    \b
    Examples:
      farandole runs list --pipeline merge --state dead
      farandole runs list --state parked
      farandole runs list --since 2h -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.ledger import gaps, queries

    start = moment_of(since, "--since")
    with projection() as conn:
        found = queries.runs(conn, pipeline=pipeline, states=states, since=start, limit=limit)
        lacking = gaps.gaps(conn, pipeline)
    for name in sorted({gap["pipeline"] for gap in lacking}):
        tell(f"{name} is incomplete: some of its events are lost; which: farandole gaps {name}")
    columns = ["id", "pipeline", "state", "interval", "started_at", "seconds", "error"]
    if states == ("parked",):
        columns = ["id", "pipeline", "due", "attempt", "started_at", "error"]
    emit(found, output, columns=columns, empty="no runs; farandole run SERVICE starts a pipeline")
    return FINE


@runs.command()
@click.argument("run_id", metavar="ID")
@output_option
def show(run_id: str, output: str | None) -> int:
    """One run: its steps with attempts and waits, the events it came from, what it emitted, its error.

    The beginning of an id is enough, if only one run begins so.
    """
    from farandole.ledger import queries

    with projection() as conn:
        found = queries.run_shown(conn, run_id)
    if not emit_one(found, output):
        for line in _told(found):
            click.echo(line)
    return FINE


@click.command()
@click.argument("identity", metavar="ID")
@click.option("--up", is_flag=True, help="Only where it came from.")
@click.option("--down", is_flag=True, help="Only what it led to.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "jsonl", "mermaid"]),
    help="How to print; a tree on a terminal, else jsonl.",
)
def lineage(identity: str, up: bool, down: bool, output: str | None) -> int:
    """Where an event or a run came from, and what it led to: both ways unless told otherwise.

    ID is the id of an event or of a run; its beginning is enough, if only one begins so.

    \b
    Examples:
      farandole lineage 6f1c2a
      farandole lineage 6f1c2a --down -o mermaid
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.ledger.lineage import MOST
    from farandole.ledger.lineage import lineage as ask

    both = up == down
    with projection() as conn:
        found = ask(conn, identity, up=up or both, down=down or both)
    if found.cut:
        click.echo(f"cut at {MOST} events and runs: there are more", err=True)
    if output == "mermaid":
        click.echo("\n".join(_mermaid(found)))
    elif not emit_one(_graph(found), output):
        for line in _tree(found, up=up or both, down=down or both):
            click.echo(line)
    return FINE


def _told(run: dict[str, Any]) -> Iterator[str]:
    """A run as a person reads it: what caused it, then line by line where the time went."""
    about = f" for {run['interval']['start']} to {run['interval']['end']}" if run["interval"] else ""
    again = f"   epoch {run['epoch']}, life {run['life']}" if run["epoch"] or run["life"] else ""
    yield f"run {run['id']}  {run['pipeline']}{about}  {run['state']} in {lasted(run['seconds'])}{again}"
    if run["state"] == "parked" and "detached" in run["detail"]:
        yield f" detached   {run['detail']['detached']} is under way, or waits for an instance with a free slot"
    elif run["state"] == "parked":
        behind = f"   behind {run['detail']['behind']}" if "behind" in run["detail"] else ""
        yield f" parked   due {local(run['due'])}   attempt {run['attempt']}{behind}"
    yield from (f" {name}   {text}" for name, text in run["detail"].items() if name in ("actor", "reason"))
    for cause in run["triggers"]:
        where = f"{cause['topic']} @ p{cause['partition']}:{cause['offset']}"
        derived = " (derived)" if cause["derived"] else ""
        yield f" caused by {where}   {cause['signal'] or '-'}   {cause['id']}{derived}"
    yield from _timeline(run)
    for output in run["outputs"]:
        yield f"   ◆ {output['topic']} emitted   {output['id']}"
    if (error := run["error_detail"]) is not None:
        where = f"{error['stage']} {error['step']}".strip()
        yield f" error   {error['class']} in {where}   fingerprint {error['fingerprint']}"
        yield from (f"         {line}" for line in error["message"].splitlines())
    yield f" version {run['version'] or '-'}   instance {run['instance'] or '-'}   correlation {run['correlation_id']}"


def _timeline(run: dict[str, Any]) -> Iterator[str]:
    from datetime import datetime

    before = run["started_at"]
    whole = max((step["seconds"] or 0 for step in run["steps"]), default=0) or 1
    for step in run["steps"]:
        if before and step["started_at"]:
            gap = (datetime.fromisoformat(step["started_at"]) - datetime.fromisoformat(before)).total_seconds()
            if gap >= 0.1:  # noqa: PLR2004 - what a person would ask about
                yield f"   {local(before)[11:19]}  ░ waited {lasted(gap)}"
        bar = "▓" * (1 + round(19 * (step["seconds"] or 0) / whole))
        tries = f"attempt {step['attempts']}" if step["attempts"] == 1 else f"{step['attempts']} attempts"
        how = "kept from before" if step["reused"] else tries
        line = f"   {local(step['started_at'])[11:19]}  {bar} {step['name']}  {step['state']}  {how}"
        by = f"  on {step['version']}" if step["version"] else ""
        yield f"{line}  {lasted(step['seconds'])}{by}" + (f"  ✕ {step['error']}" if step["error"] else "")
        before = step["ended_at"] or before


def _graph(found: Lineage) -> dict[str, Any]:
    return {
        "root": found.root._asdict(),
        "nodes": list(found.nodes.values()),
        "edges": [
            {"cause": edge.cause._asdict(), "effect": edge.effect._asdict(), "how": edge.how} for edge in found.edges
        ],
        "cut": found.cut,
    }


def _label(found: Lineage, key: Key) -> str:
    node = found.nodes[key]
    if key.kind == "run":
        return f"run {node.get('pipeline', '?')}  {node.get('state', '?')}  {key.id}"
    at = f" p{node['partition']}:{node['offset']}" if "offset" in node else ""
    return f"{node.get('type') or 'event'}{at}  {key.id}"


def _tree(found: Lineage, *, up: bool, down: bool) -> Iterator[str]:
    if up:
        yield "came from"
        yield from _branch(found, found.root, upward=True)
    if down:
        yield "led to"
        yield from _branch(found, found.root, upward=False)


def _branch(found: Lineage, root: Key, *, upward: bool) -> Iterator[str]:
    """Depth first, without recursion: a chain of a thousand hops is no reason to fail."""
    beyond: dict[Key, list[Key]] = {}
    for edge in found.edges:
        here, there = (edge.effect, edge.cause) if upward else (edge.cause, edge.effect)
        beyond.setdefault(here, []).append(there)
    seen: set[Key] = set()
    border = [(root, "", "", "")]
    while border:
        key, before, joint, below = border.pop()
        again = key in seen
        nexts = [] if again else beyond.get(key, [])
        yield f"{before}{joint}{_label(found, key)}" + ("  (above)" if again and joint else "")
        seen.add(key)
        for place, child in enumerate(reversed(nexts)):
            last = place == 0
            border.append((child, before + below, "└─ " if last else "├─ ", "   " if last else "│  "))


def _mermaid(found: Lineage) -> Iterator[str]:
    names = {key: f"n{at}" for at, key in enumerate(found.nodes)}
    yield "flowchart LR"
    for key, name in names.items():
        text = _label(found, key).replace('"', "#quot;")
        shape = f'["{text}"]' if key.kind == "run" else f'(["{text}"])'
        yield f"  {name}{shape}"
    for edge in found.edges:
        arrow = "-.->" if edge.how == "story" else "-->"
        yield f"  {names[edge.cause]} {arrow} {names[edge.effect]}"
    yield f"  style {names[found.root]} stroke-width:3px"
