"""`farandole dlq redrive|apply|plans|resolve`: dead letters back to their pipeline, a plan first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import actor, emit_one, lasted, tell
from farandole.cli.letters import (
    control_of,
    gathered,
    ledger_of,
    letters_of,
    selecting,
    selection,
    sender_of,
)
from farandole.cli.output import emit, output_option
from farandole.cli.records import Clients, clients
from farandole.errors import ATTENTION, FINE

if TYPE_CHECKING:
    from farandole.kafka.control import Control
    from farandole.redrive import Order, Progress, RedrivePlan
    from farandole.selection import Selection

_SECOND, _MINUTE = 1.0, 60.0


class _Rate(click.ParamType):
    """Runs a second, from ``20/s``, ``600/m`` or ``20``."""

    name = "N/s"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        number, _, unit = str(value).partition("/")
        try:
            rate = float(number) / {"": _SECOND, "s": _SECOND, "m": _MINUTE}[unit]
        except (ValueError, KeyError):
            self.fail(f"{value!r} is no rate: write 20/s or 600/m", param, ctx)
        return rate if rate > 0 else self.fail("a rate is more than 0", param, ctx)


class _Share(click.ParamType):
    """A part of a whole, from ``5%`` or ``0.05``."""

    name = "SHARE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Between 0 and 1."""
        text = str(value)
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{value!r} is no share: write 5% or 0.05", param, ctx)
        return share if 0 <= share <= 1 else self.fail("a share is between 0% and 100%", param, ctx)


class _Span(click.ParamType):
    """Seconds, from ``10m``."""

    name = "SPAN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        from farandole.clock import seconds

        try:
            return seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


RATE, SHARE, SPAN = _Rate(), _Share(), _Span()
pipeline_option = click.option("--pipeline", help="Letters of this pipeline; all of them where nothing else is said.")
reason_option = click.option("--reason", default="", help="Why, for the audit topic.")
wait_option = click.option(
    "--wait", type=SPAN, default="10m", show_default=True, help="How long to stay without news of a run."
)
plan_option = click.option("--plan", "only_plan", is_flag=True, help="Make the plan, keep it, and do nothing.")
yes_option = click.option("--yes", is_flag=True, help="Carry the plan out without asking.")


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@pipeline_option
@selecting
@click.option("--rate", type=RATE, default="20/s", show_default=True, help="How many runs to send: 20/s, 600/m.")
@click.option(
    "--max-failures", "limit", type=SHARE, default="5%", show_default=True, help="Stop above this share of a step."
)
@reason_option
@wait_option
@plan_option
@yes_option
@output_option
def redrive(
    ids: tuple[str, ...],
    pipeline: str | None,
    group: str,
    key: str | None,
    since: str,
    until: str,
    topic: str,
    rate: float,
    limit: float,
    reason: str,
    wait: float,
    only_plan: bool,
    yes: bool,
    output: str | None,
) -> int:
    """Run dead letters again: they go to the retry topic of their own pipeline, and nobody else receives anything.

    First a plan: which letters, in steps of 1, 10, 100 and the rest. Each step waits until its runs have ended, as
    the ledger says, and where too many failed again it stops by itself, with exit code 3. A run goes on at the step
    that failed. Nothing is taken from the dead-letter topic. Interrupted at any point, `farandole dlq apply` goes
    on: what is sent twice runs once.

    \b
    Examples:
      farandole dlq redrive --group 3f2a09 --plan
      farandole dlq redrive --pipeline merge --since 2h --rate 100/s --yes
      farandole dlq redrive 6f1c2a --yes
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    wanted = _asked(ids, pipeline, selection(ids, group, key, since, until))
    with clients() as c:
        plan, oldest = _planned(c, wanted, (pipeline, topic), _order(rate, limit, reason))
        return _plan_then(c, plan, (only_plan, yes), output, lambda: _carried_out(c, plan, oldest, wait, output))


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@pipeline_option
@selecting
@click.option("--reason", required=True, help="Why no run is needed; it stands in the ledger.")
@wait_option
@plan_option
@yes_option
@output_option
def resolve(
    ids: tuple[str, ...],
    pipeline: str | None,
    group: str,
    key: str | None,
    since: str,
    until: str,
    topic: str,
    reason: str,
    wait: float,
    only_plan: bool,
    yes: bool,
    output: str | None,
) -> int:
    """Settle dead letters without running them: mended by hand, or no longer wanted.

    The pipeline's own service writes `resolved` into the ledger, with who said so and why. The letters stay where
    they are.

    \b
    Examples:
      farandole dlq resolve 6f1c2a --reason "booked by hand, ticket 812"
      farandole dlq resolve --group 3f2a09 --reason "test data" --plan
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.delivery import RESOLVE

    wanted = _asked(ids, pipeline, selection(ids, group, key, since, until))
    if not reason.strip():
        raise click.BadParameter("say why, in words", param_hint="--reason")
    with clients() as c:
        order = _order(500.0, 1.0, reason)._replace(kind=RESOLVE)
        plan, oldest = _planned(c, wanted, (pipeline, topic), order)
        return _plan_then(c, plan, (only_plan, yes), output, lambda: _carried_out(c, plan, oldest, wait, output))


@click.command()
@click.argument("plan_id", metavar="PLAN")
@click.option("--rate", type=RATE, default=None, help="Another rate than the plan's.")
@click.option("--max-failures", "limit", type=SHARE, default=None, help="Another limit than the plan's.")
@wait_option
@output_option
def apply(plan_id: str, rate: float | None, limit: float | None, wait: float, output: str | None) -> int:
    """Carry a plan out, or go on with one that was interrupted or has stopped. Sends what has not arrived.

    \b
    Examples:
      farandole dlq apply 51aa07c2
      farandole dlq apply 51aa07c2 --max-failures 20% --rate 200/s
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole import control as notes_of
    from farandole.redrive import FINISHED, plan_of
    from farandole.redriving import reopened

    with clients() as c:
        notes = control_of(c).load(notes_of.plan_id(plan_id))
        plan, noted = plan_of(notes, plan_id)
        progress = notes.get(notes_of.plan_id(plan_id, notes_of.PROGRESS))
        if progress is not None and progress.detail["state"] == FINISHED:
            tell(f"plan {plan_id} was carried out already")
            emit_one({"plan": plan_id, **progress.detail}, output)
            return FINE
        with letters_of(c, plan.pipeline, plan.topic) as letters:
            plan, oldest = reopened(plan, noted, letters)
        plan = replace(plan, rate=rate or plan.rate, limit=plan.limit if limit is None else limit)
        return _carried_out(c, plan, oldest, wait, output)


@click.command()
@click.argument("pipeline", required=False)
@output_option
def plans(pipeline: str | None, output: str | None) -> int:
    """The plans that are kept, the newest first, and how far each is.

    \b
    Examples:
      farandole dlq plans
      farandole dlq plans merge -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole import control as notes_of
    from farandole.ledger.queries import moment

    with clients() as c:
        notes = control_of(c).load("plan:")
    rows = []
    for name, note in notes.items():
        if "selection" in note.detail and pipeline in (None, note.pipeline):
            plan = name.removeprefix("plan:")
            progress = notes.get(notes_of.plan_id(plan, notes_of.PROGRESS))
            told = {name: int(text) for name, text in (progress.detail if progress else {}).items() if text.isdigit()}
            rows.append(
                {
                    "plan": plan,
                    "act": note.detail["act"],
                    "pipeline": note.pipeline,
                    "letters": int(note.detail["letters"]),
                    "state": progress.detail["state"] if progress else "planned",
                    **{name: told.get(name, 0) for name in ("sent", "settled", "failed")},
                    "created": moment(note.at),
                    "actor": note.actor,
                    "reason": (progress.reason if progress else "") or note.reason or None,
                }
            )
    emit(sorted(rows, key=lambda row: str(row["created"]), reverse=True), output, empty="no plans")
    return FINE


def _asked(ids: tuple[str, ...], pipeline: str | None, wanted: Selection) -> Selection:
    """The selection, if it says anything at all: everything of everybody is never meant."""
    if not (ids or pipeline or wanted.group or wanted.key or wanted.since):
        raise click.UsageError("say which letters: ids, --group, --key, --since, or --pipeline for all of one")
    return wanted


def _order(rate: float, limit: float, reason: str) -> Order:
    from farandole.clock import SystemClock
    from farandole.redrive import Order

    return Order(rate, limit, actor(), SystemClock().millis(), reason)


def _planned(c: Clients, wanted: Selection, where: tuple[str | None, str], order: Order) -> tuple[RedrivePlan, int]:
    """The plan, and when the oldest of its letters was written."""
    from farandole.redrive import plan_redrive, sent_by

    (owner, stands), found = gathered(c, wanted, *where)
    cases = found.cases()
    with ledger_of(c, owner) as ledger:
        standing = ledger.read((case.run_id for case in cases), found.oldest)
    sent = sent_by(control_of(c).load("plan:"), owner)
    return plan_redrive((owner, stands), found, cases, standing, sent, order), found.oldest


def _plan_then(
    c: Clients, plan: RedrivePlan, how: tuple[bool, bool], output: str | None, carry: Callable[[], int]
) -> int:
    """Say the plan and keep it; carry it out if that is wanted."""
    only_plan, yes = how
    if plan.cases:
        control_of(c).save(*plan.notes())
    if not emit_one(_shown(plan), output):
        for line in _told(plan):
            click.echo(line)
    if only_plan or not plan.cases:
        return FINE
    if not yes and not (sys.stdin.isatty() and click.confirm("carry it out?", err=True)):
        tell(f"nothing was sent: farandole dlq apply {plan.id} carries it out, and so does --yes")
        return FINE
    return carry()


def _shown(plan: RedrivePlan) -> dict[str, Any]:
    return {
        "plan": plan.id if plan.cases else None,
        "act": plan.kind,
        "pipeline": plan.pipeline,
        "letters": plan.letters,
        "runs": len(plan.cases),
        "to": f"retry.{plan.pipeline}",
        "steps": [len(step) for step in plan.steps],
        "rate": plan.rate,
        "max_failures": plan.limit,
        "left_out": dict(plan.left_out),
        "sources": plan.sources,
    }


def _told(plan: RedrivePlan) -> Iterator[str]:
    from farandole.delivery import REDRIVE

    others = ", ".join(plan.sources) or "anything"
    yield f"{plan.letters} letters → retry.{plan.pipeline} only; no other subscriber of {others} receives anything"
    if plan.kind == REDRIVE and plan.cases:
        steps = " → ".join(str(len(step)) for step in plan.steps)
        yield f"  steps      {steps} runs   at {plan.rate:g}/s, {lasted(len(plan.cases) / plan.rate)} at least"
        yield f"  stops      when more than {plan.limit:.1%} of a step fail again"
    if plan.left_out:
        yield f"  left out   {', '.join(f'{number} {why}' for why, number in plan.left_out.items())}"
    if plan.cases:
        yield f"plan {plan.id}   carry it out with   farandole dlq apply {plan.id}"


def _carried_out(c: Clients, plan: RedrivePlan, oldest: int, wait: float, output: str | None) -> int:
    from farandole.clock import SystemClock
    from farandole.redrive import FINISHED, carry_out
    from farandole.redriving import KafkaDeck

    clock, control = SystemClock(), control_of(c)
    control.give(replace(plan, actor=actor()).note())
    with letters_of(c, plan.pipeline, plan.topic) as letters, ledger_of(c, plan.pipeline) as ledger:
        ledger.read((case.run_id for case in plan.cases), oldest)
        deck = KafkaDeck(plan, letters, ledger, sender_of(c, plan.pipeline, plan.id), control, clock)
        line = _Line(output, clock.monotonic)
        last = None
        for last in carry_out(plan, deck, clock, wait):
            line.say(last)
        line.end(last, deck.trouble)
    if last is None or last.state == FINISHED:
        _forget(control, plan)
        return FINE
    return ATTENTION


def _forget(control: Control, plan: RedrivePlan) -> None:
    """The letters of a plan that is done need not stand on the control topic."""
    control.forget(note.id for note in plan.notes()[:-1])


class _Line:
    """How far it is: one line that changes on a terminal, JSON lines elsewhere, at most one a second."""

    def __init__(self, output: str | None, now: Callable[[], float]) -> None:
        self._output, self._now = output, now
        self._live = sys.stdout.isatty() and output in (None, "table")
        self._said: tuple[int, str] | None = None
        self._at = 0.0

    def say(self, progress: Progress) -> None:
        if (progress.step, progress.state) == self._said and self._now() - self._at < 1.0:
            return
        self._said, self._at = (progress.step, progress.state), self._now()
        if self._live:
            click.echo(f"\r\033[K{self._text(progress)}", nl=False)
        elif not emit_one(asdict(progress), "jsonl" if self._output == "json" else self._output):
            click.echo(self._text(progress))

    def _text(self, progress: Progress) -> str:
        told = f"  step {progress.step}/{progress.steps}   sent {progress.sent}/{progress.total}"
        told += f"   settled {progress.settled}   failed {progress.failed}"
        return told + (f"   parked {progress.parked}" if progress.parked else "")

    def end(self, progress: Progress | None, trouble: dict[str, str]) -> None:
        if self._live:
            click.echo()
        for run, why in list(trouble.items())[:20]:
            tell(f"run {run} was not sent: {why}")
        if progress is not None and progress.reason:
            click.secho(f"{progress.state}: {progress.reason}", fg="red", err=True)
            tell(f"farandole dlq apply {progress.plan} goes on with it; farandole dlq groups shows what failed")
