"""One demo from its first server to its verdict."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from farandole.demo.answer import mart_rows
from farandole.demo.chain import Chain
from farandole.demo.display import Display
from farandole.demo.tally import Tally
from farandole.demo.verdict import MART, differences
from farandole.errors import FarandoleError
from farandole.lake import Lake
from farandole.settings import Settings, load_settings
from farandole.topology.explain import explain, sum_of
from farandole.topology.topology import open_topology


@dataclass(slots=True)
class Report:
    """What the demo found. Numbers are of this time, tables as they stand now; `again` says that nothing was new."""

    days: int
    files: int
    events: int
    duplicates: int
    runs: dict[str, int]
    tables: dict[str, int]
    mart_rows: int
    killed: str
    again: bool
    run_id: str
    lake: str
    logs: str
    differences: list[str]
    seconds: dict[str, float] = field(default_factory=dict)


def perform(days: int, display: Display, *, fresh: bool = False) -> Report:
    """Servers up, topology applied, data landed, everything settled, compared. Raises FarandoleError on the way."""
    if fresh:
        _set_aside(load_settings(), display)
    _servers(load_settings(), display)
    settings = load_settings()  # now they name what was started
    servers = display.seconds
    _topology(settings, display)
    topology = display.seconds
    lake = _lake(settings)
    tally = Tally()
    with tally.following(settings):
        before = _standing(tally)
        display.say(f"five services start; their logs are in {settings.state_dir / 'logs'}")
        played = Chain(settings, lake.folder.base, Path(lake.folder.path("raw")), tally, display).play(days)
        display.say("everything is settled: every group has committed all there is")
        settled = display.seconds
        found = differences(tally, played.expected, lake, days)
        after = _standing(tally)
    runs = {name: after[name] - before[name] for name in played.expected.runs()}
    connection = lake.connect()
    names = [row[0] for row in connection.sql("select view_name from duckdb_views() where not internal").fetchall()]
    seconds = {
        "servers": servers,
        "topology": topology - servers,
        **played.seconds,
        "comparison": display.seconds - settled,
        "in all": display.seconds,
    }
    return Report(
        days=days,
        files=len(played.expected.stories),
        events=after["records"] - before["records"],
        duplicates=after["duplicates"] - before["duplicates"],
        runs=runs,
        tables={n: int(connection.table(n).shape[0]) for n in sorted(names) if n != "delays" and n[0] != "_"},
        mart_rows=mart_rows(lake),
        killed=f"merge, after {played.killed[1]} merges" if played.killed else "",
        again=not any(runs.values()),
        run_id=_newest(tally, played.expected.stories),
        lake=lake.folder.base,
        logs=str(settings.state_dir / "logs"),
        differences=found,
        seconds=seconds,
    )


def _servers(settings: Settings, display: Display) -> None:
    if settings.stack == "external":
        from farandole.stack import external

        servers = external.check(settings)
    elif settings.stack == "containers":
        from farandole.stack import containers

        servers = containers.up(settings.state_dir)
    else:
        from farandole.stack.jars import Depot
        from farandole.stack.launcher import Stack

        servers = Stack(settings.state_dir, depot=Depot.of_environment(settings.maven_mirror)).up()
    display.say("servers  " + " · ".join(f"{server.name} {server.address}" for server in servers))


def _topology(settings: Settings, display: Display) -> None:
    with open_topology(settings) as topology:
        plan = topology.plan()
        if plan.refused:
            raise FarandoleError(explain(plan), place="topology", hint="farandole topology plan")
        topology.apply(plan)
    display.say(f"topology  {sum_of(plan, done=True)}")


def _set_aside(settings: Settings, display: Display) -> None:
    """A new beginning: the servers stop, and all that is known here goes to a folder beside it."""
    if settings.stack != "local":
        raise FarandoleError(
            f"--fresh begins with new servers, and FARANDOLE_STACK={settings.stack} says that they are not ours",
            place="--fresh",
            hint="name a new lake in FARANDOLE_LAKE instead",
        )
    from farandole.stack.launcher import Stack

    state = settings.state_dir.absolute()
    if not state.exists():
        return
    Stack(state).down()
    number = 1
    while (aside := state.with_name(f"{state.name}-{number}")).exists():
        number += 1
    state.rename(aside)
    display.say(f"what was here before stands in {aside.name} now")


def _lake(settings: Settings) -> Lake:
    if "://" in settings.lake:
        raise FarandoleError(
            f"the demo's feeds are written to a folder, and the lake is {settings.lake}",
            place="FARANDOLE_LAKE",
            hint="unset it, or name a folder",
        )
    return Lake(str(Path(settings.lake).absolute()))


def _newest(tally: Tally, stories: Collection[str]) -> str:
    ours = [i for i, run in tally.runs.items() if run.pipeline == MART and run.story in stories]
    return ours[-1] if ours else ""


def _standing(tally: Tally) -> dict[str, int]:
    numbers = {"records": tally.records(), "duplicates": sum(tally.duplicates.values())}
    for run in tally.runs.values():
        numbers[run.pipeline] = numbers.get(run.pipeline, 0) + 1
    return {**dict.fromkeys(("relationalize", "merge", MART), 0), **numbers}
