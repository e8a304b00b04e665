"""What `farandole replay` and `farandole backfill` share: an order shown, given, followed, and told to wait."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import actor, emit_one, lasted, tell
from farandole.cli.output import emit
from farandole.errors import FINE, FarandoleError

if TYPE_CHECKING:
    from datetime import datetime

    from farandole.declaration import Declaration
    from farandole.kafka.control import Control
    from farandole.orders import Order, Progress
    from farandole.planning import Planner, Prospect
    from farandole.settings import Settings


class Moment(click.ParamType):
    """A time; a bare date is its first moment, or with `end` the moment after its last."""

    name = "TIME"

    def __init__(self, *, end: bool = False) -> None:
        self._end = end

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """In UTC unless it says otherwise."""
        from datetime import UTC, datetime, timedelta

        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: write 2013-01-31 or 2013-01-31T06:00Z", param, ctx)
        if self._end and len(value) == len("2013-01-31"):
            found += timedelta(days=1)
        return found if found.tzinfo else found.replace(tzinfo=UTC)


class Rate(click.ParamType):
    """Events a second, from ``20/s``, ``600/m`` or ``20``."""

    name = "N/s"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number, _, unit = str(value).partition("/")
        try:
            rate = float(number) / {"": 1.0, "s": 1.0, "m": 60.0}[unit]
        except (ValueError, KeyError):
            self.fail(f"{value!r} is no rate: write 20/s or 600/m", param, ctx)
        return rate if rate > 0 else self.fail("a rate is more than 0", param, ctx)


@dataclass(frozen=True, slots=True)
class Office:
    """Where orders are planned and given."""

    settings: Settings
    planner: Planner
    control: Control
    declaration: Declaration


@contextmanager
def office(pipeline: str) -> Iterator[Office]:
    """The clients for planning and for giving orders to one pipeline."""
    from farandole.cli.records import clients
    from farandole.clock import SystemClock
    from farandole.find import find_declaration
    from farandole.kafka.admin import Admin
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.kafka.reader import TopicReader
    from farandole.planning import Planner
    from farandole.reconciler.cluster import Cluster
    from farandole.service import schemas
    from farandole.topics import own_schemas

    declaration = find_declaration(pipeline)
    with clients() as c:
        bootstrap, properties = c.settings.bootstrap(), c.settings.client_properties()
        cluster = Cluster(
            Admin(bootstrap, properties),
            lambda topic: TopicReader(bootstrap, topic, properties),
            Codec(c.registry, schemas()),
            lambda _: (),
            SystemClock(),
        )
        control = Control(bootstrap, Codec(c.registry, own_schemas(), trusted=own_schemas()), properties)
        yield Office(c.settings, Planner(declaration, cluster), control, declaration)


def neighbours(declaration: Declaration) -> list[tuple[str, int]]:
    """Who comes after a pipeline, as the services of this folder declare it."""
    from farandole.errors import DeclarationError
    from farandole.find import find_declaration, services
    from farandole.planning import downstream

    others = []
    for name in services():
        try:
            others.append(find_declaration(name))
        except DeclarationError as error:
            tell(f"{name} is left out of the graph: {error.message}")
    return downstream(declaration, others)


def fresh_id() -> str:
    """An id for an order."""
    return uuid.uuid4().hex[:8]


def agreed(*, yes: bool) -> bool:
    """Whether it is to be carried out: a person is asked, a script has to say --yes."""
    if yes or (sys.stdin.isatty() and click.confirm("carry it out?", err=True)):
        return True
    tell("nothing was ordered: the same command with --yes does it")
    return False


def given(desk: Office, order: Order, output: str | None, *, only_plan: bool, yes: bool) -> int:
    """After its plan was shown: give the order, if that is wanted."""
    from farandole.clock import SystemClock

    if only_plan or not order.events:
        return FINE
    if not agreed(yes=yes):
        return FINE
    now = SystemClock().millis()
    order = replace(order, actor=actor(), given_at=now)
    desk.control.give(order.command(now))
    if not emit_one({"order": order.id, "pipeline": order.pipeline, "events": order.events}, output):
        click.echo(f"order {order.id} is given: {order.pipeline} carries it out beside its live work")
        click.echo(f"  how far it is   farandole {order.kind} status {order.id}")
    return FINE


def shown(prospect: Prospect) -> dict[str, Any]:
    """A plan as JSON."""
    order = prospect.order
    return {
        "pipeline": order.pipeline,
        "about": order.about,
        "events": prospect.events,
        "runs": prospect.runs,
        "before": dict(prospect.before),
        "filtered": dict(prospect.filtered),
        "unreadable": prospect.unreadable,
        "cascade": order.cascade,
        "reaches": prospect.reached,
        "downstream": [name for name, _ in prospect.downstream],
        "ranges": [one.record() for one in order.stretches],
        "notes": prospect.notes,
    }


def told(prospect: Prospect) -> Iterator[str]:
    """A plan as a person reads it."""
    order = prospect.order
    before = ", ".join(f"{number} {state}" for state, number in sorted(prospect.before.items()))
    yield f"{order.pipeline}  {order.about}"
    yield f"  {prospect.events} events, {prospect.runs} runs in an epoch of their own" + (
        f"   before: {before}" if before else ""
    )
    for reason, number in sorted(prospect.filtered.items()):
        yield f"  {number} filtered: {reason}"
    if prospect.unreadable:
        yield f"  {prospect.unreadable} cannot be read, and become dead letters"
    if not prospect.downstream:
        yield "  nobody declared here listens to what it emits"
    elif prospect.reached:
        yield f"  downstream  {', '.join(prospect.reached)} do it again   --cascade {order.cascade}"
    if spared := [name for name, _ in prospect.downstream if name not in prospect.reached]:
        yield f"  downstream  {', '.join(spared)} filter it as cascade.none"
    for note in prospect.notes:
        yield f"  {note}"


def status(kind: str, name: str, output: str | None) -> int:
    """How far orders are: of one, of a pipeline, or all."""
    from farandole.clock import SystemClock, iso_of

    now = SystemClock().millis()
    rows = []
    for one in _orders(kind):
        order = one.order
        if name and not (order.id.startswith(name) or order.pipeline == name):
            continue
        left = one.seconds_left(now)
        rows.append(
            {
                "order": order.id,
                "pipeline": order.pipeline,
                "about": order.about,
                "state": one.state,
                "epoch": one.epoch,
                "done": one.done,
                "total": one.total,
                "percent": round(100 * one.done / one.total) if one.total else 0,
                "left": lasted(left) if left is not None else None,
                "cascade": order.cascade,
                "given": iso_of(order.given_at),
                "actor": order.actor,
                "reason": order.reason or None,
            }
        )
    columns = ["order", "pipeline", "about", "state", "epoch", "done", "total", "left", "actor", "reason"]
    emit(rows, output, columns=columns, empty=f"no {kind} was ordered")
    return FINE


def changed(kind: str, name: str, state: str, reason: str, output: str | None) -> int:
    """Let an order wait, go on, or end. Raises FarandoleError where there is no such order, or it has ended."""
    from farandole.clock import SystemClock
    from farandole.orders import CANCELLED, DONE, PAUSED, REFUSED

    found = [one for one in _orders(kind) if one.order.id.startswith(name)]
    if len(found) != 1:
        raise FarandoleError(
            f"{'more than one' if found else 'no'} {kind} has an order that begins with {name!r}",
            hint=f"farandole {kind} status shows them",
        )
    if found[0].state in (DONE, CANCELLED, REFUSED):
        raise FarandoleError(f"order {found[0].order.id} is {found[0].state}", place=found[0].order.pipeline)
    now = SystemClock().millis()
    order = replace(found[0].order, state=state)
    with _control() as (_, control):
        control.give(replace(order.command(now), actor=actor(), reason=reason))
    if not emit_one({"order": order.id, "pipeline": order.pipeline, "state": state}, output):
        said = {PAUSED: "waits; what is under way ends", CANCELLED: "ends; what is under way ends, the rest is left"}
        click.echo(f"order {order.id} of {order.pipeline} {said.get(state, 'goes on where it stood')}")
    return FINE


def _orders(kind: str) -> list[Progress]:
    """Every order that stands on the control topic, with how far it is where its pipeline's database says so."""
    from farandole.control import ORDER
    from farandole.orders import DONE, REFUSED, Order, Progress
    from farandole.store.orders import read_progress

    with _control() as (settings, control):
        standing = [Order.of(one) for one in control.load("order:").values() if one.kind == ORDER]
    mine = [order for order in reversed(standing) if order.kind == kind]
    known = {
        one.order.id: one
        for pipeline in {order.pipeline for order in mine}
        for one in read_progress(settings.database(pipeline), pipeline)
    }
    found = []
    for order in mine:
        one = known.get(order.id)
        total = sum(stretch.below(stretch.range.end) for stretch in order.stretches)
        if one is None:
            found.append(Progress(order, None, 0, total))
        else:  # what is over is over, whatever was wanted after it
            over = one.order.state in (DONE, REFUSED)
            found.append(one if over else replace(one, order=order))
    return found


@contextmanager
def _control() -> Iterator[tuple[Settings, Control]]:
    from farandole.cli.records import clients
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.topics import own_schemas

    with clients() as c:
        codec = Codec(c.registry, own_schemas(), trusted=own_schemas())
        yield c.settings, Control(c.settings.bootstrap(), codec, c.settings.client_properties())
