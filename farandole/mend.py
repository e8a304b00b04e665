"""An event whose value a person mends: as JSON, and back into the bytes that its subject's schema takes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from farandole.errors import FarandoleError
from farandole.kafka.codec import Codec
from farandole.kafka.registry import Registry
from farandole.plain import from_plain

Value = dict[str, Any]


def shown(value: Any) -> Any:
    """A decoded value as JSON has it; times keep every microsecond, bytes are hex."""
    match value:
        case Mapping():
            return {name: shown(part) for name, part in value.items()}
        case list() | tuple():
            return [shown(part) for part in value]
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case bytes():
            return value.hex()
        case None | bool() | int() | float() | str():
            return value
    return str(value)


def assigned(value: Value, settings: Iterable[str]) -> Value:
    """A value with fields set by ``path=value``: JSON, but text where text stood, and where it is no JSON.

    Raises FarandoleError for what sets no field.
    """
    made: Value = json.loads(json.dumps(value))
    for setting in settings:
        path, equals, text = setting.partition("=")
        *outer, name = path.split(".")
        at: Any = made
        for part in outer:
            at = at.get(part) if isinstance(at, dict) else None
        if not equals or not isinstance(at, dict):
            raise FarandoleError(
                f"{setting!r} sets no field", place="--set", hint="write it as field=value, or outer.field=value"
            )
        at[name] = _typed(text, at.get(name))
    return made


def _typed(text: str, before: Any) -> Any:
    if isinstance(before, str) and text != "null" and not text.startswith('"'):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def parsed(text: str, place: str) -> Value:
    """The JSON object that a person wrote. Raises FarandoleError."""
    try:
        made = json.loads(text)
    except ValueError as error:
        raise FarandoleError(f"this is no JSON: {error}", place=place, hint="nothing was sent") from None
    if not isinstance(made, dict):
        raise FarandoleError("an event is a JSON object", place=place, hint="nothing was sent")
    return made


def encoded(registry: Registry, topic: str, was: Value | None, made: Value, place: str) -> bytes:
    """The bytes of a mended value, by the newest schema of the topic's subject.

    What was not touched keeps the value that was decoded, whatever JSON can say of it. Raises FarandoleError
    that names the field where it does not fit.
    """
    schema = json.loads(registry.latest(f"{topic}-value")[1])
    value = from_plain(schema, _kept(was, shown(was), made), place)
    try:
        return Codec(registry, {topic: schema}).encode(topic, value)
    except FarandoleError as error:
        error.place = f"{place} for {error.place}"
        raise


def _kept(was: Any, before: Any, made: Any) -> Any:
    """The value that was decoded wherever what is shown of it was left alone."""
    if json.dumps(made) == json.dumps(before):
        return was
    if isinstance(made, dict) and isinstance(was, Mapping):
        return {name: _kept(was[name], before[name], part) if name in was else part for name, part in made.items()}
    return made


def difference(before: Value | None, after: Value) -> Iterator[str]:
    """What changed, line by line."""
    one, other = (json.dumps(side, indent=2, ensure_ascii=False).splitlines() for side in (before, after))
    return difflib.unified_diff(one, other, "dead letter", "edited", lineterm="", n=2)
