"""What a function is called, asks for and gives, read from its annotations.

A declaration holds functions by reference (``module:name``), so that it stays a plain value.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

from farandole.errors import DeclarationError
from farandole.event import event_type_of
from farandole.problem import nearest
from farandole.problem import place as place_at

_MANY = (tuple, list, Sequence, Iterable, Iterator)
_STREAMS = (Iterator, Generator, AsyncIterator, AsyncGenerator, Iterable)
_LOCAL: dict[str, Callable[..., Any]] = {}
"""Functions written inside another function (in tests): their references cannot be imported."""


def reference_of(function: Any) -> str:
    """The reference (``module:name``) of a function. Raises DeclarationError for what has no name."""
    name = getattr(function, "__qualname__", "")
    if not callable(function) or not name or "<lambda>" in name:
        raise DeclarationError(
            f"{function!r} cannot stand in a declaration: it has no name",
            hint="write it as a function with def, at the top of a module",
        )
    reference = f"{function.__module__}:{name}"
    if "<locals>" in name:
        _LOCAL[reference] = function
    return reference


def resolve(reference: str, *, place: str = "") -> Callable[..., Any]:
    """The function behind a reference, imported. Raises DeclarationError if there is none."""
    if reference in _LOCAL:
        return _LOCAL[reference]
    module_name, _, path = reference.partition(":")
    found: Any = imported(module_name, f"`{reference}`", place=place)
    for name in path.split("."):
        names = [n for n in vars(found) if not n.startswith("_")] if hasattr(found, "__dict__") else []
        found = getattr(found, name, None)
        if found is None:
            raise DeclarationError(
                f"`{reference}`: {module_name} has no `{path}`",
                place=place,
                hint=nearest(name, names) or f"define {path} in {module_name}",
            )
    if not callable(found):
        raise DeclarationError(f"`{reference}` is no function", place=place, hint="name a function")
    return typing.cast("Callable[..., Any]", found)


def imported(module_name: str, title: str, *, place: str = "") -> types.ModuleType:
    """An author's module. Raises DeclarationError, with the author's own line, for whatever stops the import."""
    try:
        return importlib.import_module(module_name)
    except DeclarationError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise DeclarationError(
                f"{title}: there is no module {error.name}",
                place=place,
                hint="write it as module:function; a module beside pipeline.yaml needs no package in front",
            ) from error
        raise DeclarationError(
            f"{title}: {module_name} cannot be imported: {type(error).__name__}: {error}",
            place=_line_of(error) or place,
            hint=f"python -c 'import {module_name}' shows the whole traceback",
        ) from error


def _line_of(error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return place_at(error.filename, error.lineno or 1)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    frames = [f for f in frames if f.filename != __file__]
    return place_at(frames[-1].filename, frames[-1].lineno or 1) if frames else ""


def place_of(function: Any) -> str:
    """``file:line`` of a function; empty for what was not written in a file."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return place_at(code.co_filename, code.co_firstlineno) if code else ""


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function, resolved. Raises DeclarationError for a name that is not there at run time."""
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError, AttributeError) as error:
        raise DeclarationError(
            f"{getattr(function, '__name__', function)}: its annotations cannot be read: {error}",
            place=place_of(function),
            hint="import the types of a step's parameters at the top of the module, not under TYPE_CHECKING",
        ) from error


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union without None; anything else is its own only member."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(m for m in typing.get_args(annotation) if m is not types.NoneType)
    return (annotation,)


def events_given(annotation: Any) -> tuple[str, ...]:
    """The event types that a return annotation tells of: an event, several in a tuple or list, one or none.

    A mapping or a class that only holds events is a value for later steps, not an emission.
    """
    found: list[str] = []
    for member in members(annotation):
        if typing.get_origin(member) in _MANY:
            for inner in typing.get_args(member):
                found += events_given(inner)
        elif isinstance(member, type) and (event_type := event_type_of(member)):
            found.append(event_type)
    return tuple(dict.fromkeys(found))


def resource_given(function: Callable[..., Any]) -> type:
    """The type that a resource function gives: what it returns, or what it yields."""
    annotation = hints_of(function).get("return")
    if typing.get_origin(annotation) in _STREAMS:
        annotation = typing.get_args(annotation)[0]
    if not isinstance(annotation, type) or annotation is types.NoneType:
        raise DeclarationError(
            f"the resource {getattr(function, '__name__', function)} does not say which type it gives",
            place=place_of(function),
            hint="annotate what it returns or yields: `-> Lake`, or `-> Iterator[Lake]` for one that is closed",
        )
    return annotation


def fits(given: Any, asked: Any) -> bool:
    """Whether a value annotated as `given` may fill a parameter annotated as `asked`; Any fits nothing by type."""
    if given == asked:
        return True
    return all(any(_fits(g, a) for a in members(asked)) for g in members(given))


def _fits(given: Any, asked: Any) -> bool:
    if given == asked:
        return True
    if typing.get_origin(asked) is not None:  # list[Row] is asked for as list[Row]
        return False
    plain = typing.get_origin(given) or given
    if not isinstance(plain, type) or not isinstance(asked, type) or asked is object:
        return False
    try:
        return issubclass(plain, asked)
    except TypeError:  # a Protocol that cannot be asked at run time
        return False


def spelled(annotation: Any) -> str:
    """An annotation as the author wrote it, for messages."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
