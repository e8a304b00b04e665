"""What a step gave, as bytes: so that it is not asked again after a crash, a retry or a redrive.

Events are kept by event type, any other value as MessagePack and read back as the type the step declares.
"""

from __future__ import annotations

from typing import Any

import msgspec

from farandole.errors import Unfillable, Unreadable
from farandole.event import EVENT_TYPES, event_type_of
from farandole.signature import events_given, fits, members, spelled


def pack(result: Any, step: str, version: str = "") -> bytes:
    """The bytes of a step's result, with its type and the version of the code that gave it.

    Raises Unfillable where it has no such form: a later step, after a crash, could not be given it.
    """
    try:
        return msgspec.msgpack.encode({**_shape(result), "type": _type(result), "version": version}, enc_hook=_plain)
    except (TypeError, ValueError) as error:
        raise Unfillable(
            f"the result of {step} cannot be kept: {error}",
            place=step,
            hint="return an event, a dataclass, a pydantic or msgspec value, or plain lists, dicts and scalars",
        ) from error


def _shape(result: Any) -> dict[str, Any]:
    if event_type := event_type_of(result):
        return {"event": event_type, "value": result.record()}
    if isinstance(result, list | tuple) and result and all(event_type_of(r) for r in result):
        return {"events": [_shape(r) for r in result]}
    return {"value": result}


def _type(result: Any) -> str:
    return event_type_of(result) or type(result).__name__


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} has no plain form")


def unpack(kept: bytes, returns: Any, step: str = "") -> tuple[Any, str]:
    """The result again, and the version of the code that gave it.

    `returns` is the step's return annotation, by which a plain value gets its type back. Raises Unreadable where the
    code of today makes something else of the step.
    """
    shape = msgspec.msgpack.decode(kept)
    version = shape.get("version", "")
    try:
        return _value(shape, returns), version
    except Exception as error:
        by = f"by version {version}" if version else "by an earlier version"
        raise Unreadable(
            f"what {step} gave is kept as {shape.get('type', 'a value')}, {by}, and cannot be read as "
            f"{spelled(returns)}: {type(error).__name__}: {error}",
            place=step,
            hint="let the step declare a type that reads it too (a default for a new field), or give the step another "
            "name, so that it is asked again; then redrive",
        ) from error


def _value(shape: dict[str, Any], returns: Any) -> Any:
    if "events" in shape:
        return [_value(s, None) for s in shape["events"]]
    if "event" in shape:
        _declared(shape["event"], returns)
        return EVENT_TYPES[shape["event"]].of(shape["value"])
    if returns is None or returns is Any:
        return shape["value"]
    if hasattr(returns, "model_validate"):
        return returns.model_validate(shape["value"])
    return msgspec.convert(shape["value"], type=returns, strict=False)


def _declared(event_type: str, returns: Any) -> None:
    """An event is what it is: where the step says now that it gives something else, a later step would be misled."""
    told = events_given(returns)
    vague = any(m in (None, Any) or not isinstance(m, type) for m in members(returns))
    if event_type not in told and not vague and not fits(EVENT_TYPES[event_type], returns):
        raise TypeError(f"the step gives no {event_type} any more")
