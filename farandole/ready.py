"""Ready-made steps, which a manifest can `use` by name."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from farandole.errors import DeclarationError
from farandole.problem import nearest

F = TypeVar("F", bound=Callable[..., Callable[..., Any]])

READY: dict[str, Callable[..., Callable[..., Any]]] = {}
"""The factory of every ready-made step that was imported, by name. Filled by :func:`ready`, never by hand."""


def ready(name: str) -> Callable[[F], F]:
    """Label a factory (options in, step function out) as a ready-made step: ``@ready("rows.check")``."""

    def label(factory: F) -> F:
        READY[name] = factory
        return factory

    return label


def ready_factory(name: str, *, place: str = "") -> Callable[..., Callable[..., Any]]:
    """The factory behind a name; the library's own steps are imported if need be. Raises DeclarationError."""
    if name not in READY:
        own = importlib.import_module("farandole.steps")  # heavy ones among them: only when one is used
        for module in pkgutil.iter_modules(own.__path__, "farandole.steps."):
            importlib.import_module(module.name)
    if name not in READY:
        raise DeclarationError(
            f"there is no ready-made step `{name}`",
            place=place,
            hint=nearest(name, READY) or f"known: {', '.join(sorted(READY)) or 'none'}; write your own with call:",
        )
    return READY[name]


def ready_module(name: str, *, place: str = "") -> ModuleType:
    """The module that a ready-made step lives in, imported."""
    return sys.modules[ready_factory(name, place=place).__module__]
