"""What a step gave, as bytes: so that it is not asked again after a crash, a retry or a redrive.

Events are kept by event type, any other value as MessagePack and read back as the type the step declares.
"""

from __future__ import annotations

from typing import Any

import msgspec

from farandole.errors import Unfillable
from farandole.event import EVENT_TYPES, event_type_of


def pack(result: Any, step: str) -> bytes:
    """The bytes of a step's result.

    Raises Unfillable where it has no such form: a later step, after a crash, could not be given it.
    """
    try:
        return msgspec.msgpack.encode(_shape(result), enc_hook=_plain)
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


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} has no plain form")


def unpack(kept: bytes, returns: Any) -> Any:
    """The result again; `returns` is the step's return annotation, by which a plain value gets its type back."""
    return _value(msgspec.msgpack.decode(kept), returns)


def _value(shape: dict[str, Any], returns: Any) -> Any:
    if "events" in shape:
        return [_value(s, None) for s in shape["events"]]
    if "event" in shape:
        return EVENT_TYPES[shape["event"]].of(shape["value"])
    if returns is None or returns is Any:
        return shape["value"]
    if hasattr(returns, "model_validate"):
        return returns.model_validate(shape["value"])
    return msgspec.convert(shape["value"], type=returns, strict=False)
