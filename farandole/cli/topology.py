"""`farandole topology plan` and `apply`: from what the repository says to what stands on the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import actor
from farandole.cli.output import emit, output_option
from farandole.errors import DIFFERENCES, ERROR, FINE

if TYPE_CHECKING:
    from farandole.topology.topology import Topology


def _shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    reorder = "Allow more partitions for a topic that exists: record keys move, and their order is lost at the border."
    for option in (
        output_option,
        click.option("--accept-reorder", is_flag=True, help=reorder),
        click.option(
            "--cluster",
            envvar="FARANDOLE_CLUSTER",
            default="local",
            show_default=True,
            help="Which file of topology/clusters/.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def topology() -> None:
    """Topics, schemas and offsets: what the repository says, and what stands.

    Read from topology/topics.yaml, topology/clusters/, schemas/avro/ and the services' declarations. Nothing
    is ever deleted or recreated, and topics that the repository does not name are left alone.
    """


@topology.command()
@_shared_options
@click.option("--detailed-exitcode", is_flag=True, help="Leave with 2 when there is something to do.")
def plan(cluster: str, accept_reorder: bool, output: str | None, detailed_exitcode: bool) -> int:
    """Say what `apply` would do, and do nothing.

    \b
    Examples:
      farandole topology plan
      farandole topology plan --cluster prod --detailed-exitcode
      farandole topology plan -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.topology.explain import explain, rows

    with _open(cluster) as opened:
        found = opened.plan(accept_reorder=accept_reorder)
    if output in {"json", "jsonl"}:
        emit(rows(found), output)
    else:
        click.echo(explain(found))
        if found.changes and not found.refused:
            click.echo("apply with   farandole topology apply")
    if found.refused:
        return ERROR
    return DIFFERENCES if found.changes and detailed_exitcode else FINE


@topology.command()
@_shared_options
def apply(cluster: str, accept_reorder: bool, output: str | None) -> int:
    """Bring about what the repository says. Running it again does nothing.

    If anything is refused, nothing is done.

    \b
    Examples:
      farandole topology apply
      farandole topology apply --cluster prod
    """  # noqa: D301 - as above
    from farandole.topology.explain import explain, rows, sum_of, told

    words = output not in {"json", "jsonl"}
    with _open(cluster) as opened:
        found = opened.plan(accept_reorder=accept_reorder)
        if found.refused:
            click.echo(explain(found), err=True)
            return ERROR
        opened.apply(found, made=lambda change: click.echo(told(change)) if words else None)
    if words:
        click.echo(sum_of(found, done=True))
    else:
        emit(rows(found), output)
    return FINE


@topology.command()
@click.argument("topic")
@click.option(
    "--at",
    "cuts",
    multiple=True,
    metavar="PARTITION:OFFSET",
    help="A partition that was cut, and the offset at which a pipeline stopped in it, as the stop says.",
)
@click.option("--reason", default="", help="Why; it stands in the ledger beside your name.")
def accept(topic: str, cuts: tuple[str, ...], reason: str) -> int:
    """Go on with a topic that was deleted and created anew, or cut.

    Pipelines that read it have stopped with `topic.recreated`. With this they go on with the new topic from its
    beginning, whatever their `since` says, within some seconds. What the old one held unread stays a gap.

    Where the log of a partition ends before what was settled, they have stopped with `data.truncated`, and --at says
    which of them go on: from the first record that is there. What was settled is known by its key, and not run again.

    \b
    Examples:
      farandole topology accept lake.file.landed.v1 --reason "moved to the new cluster"
      farandole topology accept lake.file.landed.v1 --at 3:1200 --reason "restored from Monday's copy"
    """  # noqa: D301 - as above
    from farandole.kafka.admin import Admin
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.kafka.registry import Registry
    from farandole.settings import load_settings
    from farandole.topics import own_schemas
    from farandole.topology.accept import accept as accept_topic

    places = [_place(cut) for cut in cuts]
    settings = load_settings()
    properties = settings.client_properties()
    registry = Registry(settings.registry(), settings.schema_registry_basic_auth_user_info)
    try:
        control = Control(settings.bootstrap(), Codec(registry, own_schemas()), properties)
        admin = Admin(settings.bootstrap(), properties)
        topic_id = accept_topic(admin, control, topic, actor=actor(), reason=reason, cuts=places)
    finally:
        registry.close()
    click.echo(f"accepted  {topic}, as {topic_id}")
    return FINE


def _place(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not (partition.isdigit() and offset.isdigit()):
        raise click.BadParameter(f"{text!r} is no partition with an offset: write 3:1200", param_hint="--at")
    return int(partition), int(offset)


def _open(cluster: str) -> Topology:
    from farandole.settings import load_settings
    from farandole.topology.topology import open_topology

    return open_topology(load_settings(), cluster=cluster)
