"""`farandole up`, `farandole down` and `farandole doctor`: the servers a pipeline needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from farandole.cli.output import emit, output_option
from farandole.errors import ATTENTION, FINE, SettingsError

if TYPE_CHECKING:
    from farandole.settings import Settings
    from farandole.stack.state import Server

_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--postgres", is_flag=True, help="PostgreSQL too; pipelines then keep their tables there.")
@click.option(
    "--brokers",
    type=click.Choice(["1", "3"]),
    help="How many brokers; of three, one may fail. Default: as many as before, else 1.",
)
@click.option("--kafka-port", type=click.IntRange(1, 65535), help="Default: the last one, else 9092, else a free one.")
@click.option(
    "--registry-port", type=click.IntRange(1, 65535), help="Default: the last one, else 8081, else a free one."
)
@click.option(
    "--set",
    "properties",
    multiple=True,
    metavar="NAME=VALUE",
    help="A broker property, kept for later starts; an empty VALUE takes it away.",
)
@output_option
def up(**given: Any) -> int:
    """Start Kafka and a schema registry on this machine, and wait until they answer.

    Needs Python only. Programs are fetched once (about 200 MB), data and logs stand under .farandole/. Run
    it as often as you like: what runs already is left alone.

    \b
    Examples:
      farandole up
      farandole up --postgres --set log.retention.hours=24
      FARANDOLE_STATE=.farandole-3 farandole up --brokers 3
      FARANDOLE_STACK=external farandole up     # check the servers that the environment names
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.settings import load_settings

    settings = load_settings()
    servers = _up(settings, given)
    if given["output"]:
        emit(({"server": s.name, "address": s.address, "pid": s.pid, "log": s.log} for s in servers), given["output"])
        return FINE
    for server in servers:
        click.echo(f"{server.name:10}{server.address}")
    if settings.stack != "external":
        exports = _exports(servers)
        click.echo(f"\nfarandole finds them by itself; other programs:\n  export {exports}")
        click.echo("next: farandole demo · farandole doctor · farandole down")
    return FINE


def _exports(servers: list[Server]) -> str:
    names = {
        "kafka": "KAFKA_BOOTSTRAP_SERVERS",
        "registry": "SCHEMA_REGISTRY_URL",
        "postgres": "FARANDOLE_DATABASE_URL",
    }
    told: dict[str, list[str]] = {}
    for server in servers:
        told.setdefault(names[server.name.partition("-")[0]], []).append(server.address)
    return " ".join(f"{name}={','.join(addresses)}" for name, addresses in told.items())


def _up(settings: Settings, given: dict[str, Any]) -> list[Server]:
    if given["brokers"] and settings.stack != "local":
        raise SettingsError(
            f"how many brokers there are is not ours to say with FARANDOLE_STACK={settings.stack}",
            place="--brokers",
            hint="leave the option out, or unset FARANDOLE_STACK",
        )
    if settings.stack == "external":
        from farandole.stack import external

        return external.check(settings)
    if settings.stack == "containers":
        from farandole.stack import containers

        return containers.up(settings.state_dir, with_postgres=given["postgres"])
    from farandole.stack.jars import Depot
    from farandole.stack.launcher import Stack

    stack = Stack(settings.state_dir, depot=Depot.of_environment(settings.maven_mirror))
    return stack.up(
        with_postgres=given["postgres"],
        brokers=int(given["brokers"] or 0),
        kafka_port=given["kafka_port"] or 0,
        registry_port=given["registry_port"] or 0,
        properties=dict(map(_pair, given["properties"])),
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SettingsError(f"{text!r} is no broker property", place="--set", hint="write it as NAME=VALUE")
    return name.strip(), value.strip()


@click.command()
def down() -> int:
    """Stop what `farandole up` started here. Data, schemas and ports are kept.

    \b
    Example:
      farandole down
    """  # noqa: D301
    from farandole.settings import load_settings

    settings = load_settings()
    if settings.stack == "external":
        click.echo("FARANDOLE_STACK=external: these servers are not ours to stop", err=True)
        return FINE
    if settings.stack == "containers":
        from farandole.stack import containers

        stopped = containers.down(settings.state_dir)
    else:
        from farandole.stack.launcher import Stack

        stopped = Stack(settings.state_dir).down()
    click.echo(f"stopped {', '.join(stopped)}" if stopped else f"nothing runs in {settings.state_dir}")
    return FINE


@click.command()
@output_option
def doctor(output: str | None) -> int:
    """Check this machine and every server a pipeline needs. Exit code 3: something needs attention.

    \b
    Examples:
      farandole doctor
      farandole doctor -o json
    """  # noqa: D301
    from farandole.settings import load_settings
    from farandole.stack.checkup import examine

    states = []
    findings = examine(load_settings())
    if output in ("json", "jsonl"):
        from dataclasses import asdict

        rows = [asdict(finding) for finding in findings]
        emit(rows, output)
        states = [row["state"] for row in rows]
    else:
        for finding in findings:
            states.append(finding.state)
            click.echo(
                f"{click.style(f'{finding.state:5}', fg=_COLORS[finding.state])} {finding.check:16} {finding.says}"
            )
            if finding.hint:
                click.echo(f"{'':22} → {finding.hint}")
    return FINE if all(state == "ok" for state in states) else ATTENTION
