"""What a step gave: events are emitted, with ids that whoever repeats the run computes again; the rest is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farandole.cascade import handed_on
from farandole.clock import iso
from farandole.errors import UndeclaredOutput
from farandole.event import Envelope, Record, event_type_of, record_key
from farandole.ids import digest, output_id
from farandole.signature import events_given, members, spelled

if TYPE_CHECKING:
    from farandole.run import Kit, Run


def keep(run: Run, result: Any, kit: Kit, returns: Any = Any) -> None:
    """Take a step's result: what is an event is emitted, anything else waits for later steps.

    Raises UndeclaredOutput for an event that the pipeline does not declare, and for a result that is none where
    `returns` promises one: it would be lost without a word.
    """
    if event_type_of(result) is not None:
        emit(run, result, kit)
    elif isinstance(result, list | tuple) and result and event_type_of(result[0]) is not None:
        for event in result:
            emit(run, event, kit)
    elif _broken(result, returns):
        raise UndeclaredOutput(
            f"{kit.declaration.name} got a {type(result).__name__} from a step that gives {spelled(returns)}",
            place=kit.declaration.source,
            hint="return an event, a list or tuple of events, or None",
        )
    run.results.append(result)


def _broken(result: Any, returns: Any) -> bool:
    """Whether a result that is no event breaks what its step promises."""
    if result is None or (isinstance(result, list | tuple) and not result) or not events_given(returns):
        return False
    others = [m for m in members(returns) if not events_given(m)]
    return not any(not isinstance(m, type) or isinstance(result, m) for m in others)


def emit(run: Run, event: Any, kit: Kit) -> None:
    """The record of a returned event, with an id that whoever repeats this run computes again."""
    event_type = event_type_of(event)
    if event_type not in kit.declaration.emits:
        raise UndeclaredOutput(
            f"{kit.declaration.name} returned {type(event).__name__}, which it does not declare",
            place=kit.declaration.source,
            hint=f"it emits {', '.join(kit.declaration.emits) or 'nothing'}; annotate the step with what it returns",
        )
    record = event.record()
    value = kit.encode(event_type, record)
    key = record_key(event, record)
    cause = run.cause.event.envelope
    identity = output_id(run.id, event_type, len(run.outputs))
    envelope = Envelope(
        identity,
        f"/farandole/{kit.declaration.name}",
        event_type,
        iso(kit.clock.now()),
        key.decode("utf-8", "replace") if key else "",
        cause.correlation_id,
        cause.id,
        run.id,
        run.epoch,
        _trace(cause.traceparent, run.id),
        cause.tracestate,
        restatement=_restatement(run, kit) if run.epoch or cause.restatement or run.join_key else "",
    )
    run.outputs.append(Record(event_type, key, value, envelope.headers()))  # type: ignore[arg-type]
    run.emitted.append({"topic": event_type, "id": identity, "type": event_type, "digest": digest(value)})


def _restatement(run: Run, kit: Kit) -> str:
    """What a replay emits says so; what comes of it in live work hands that on, as far as it is to reach."""
    if run.epoch:
        return kit.restates(run.epoch)
    return handed_on(signal.event.envelope.restatement for signal in run.signals)


def _trace(parent: str, run_id: str) -> str:
    """The W3C trace goes on: the parent's trace id, and a span id that is the run's."""
    parts = parent.split("-")
    return f"{parts[0]}-{parts[1]}-{run_id.replace('-', '')[:16]}-{parts[3]}" if len(parts) == 4 else ""  # noqa: PLR2004
