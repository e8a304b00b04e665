"""Pipelines that start because something happened.

What an author imports: ``from farandole import Pipeline, Retry, by, step, when``. This import loads
neither Kafka, SQL nor pydantic.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Attempt": "attempt",
    "Database": "resources",
    "Expect": "declaration",
    "Interval": "event",
    "Pipeline": "pipeline",
    "Retry": "declaration",
    "by": "pipeline",
    "pipeline": "pipeline",
    "resource": "pipeline",
    "step": "pipeline",
    "use": "pipeline",
    "when": "pipeline",
}

if TYPE_CHECKING:
    from farandole.attempt import Attempt
    from farandole.declaration import Expect, Retry
    from farandole.event import Interval
    from farandole.pipeline import Pipeline, by, pipeline, resource, step, use, when
    from farandole.resources import Database

__all__ = [
    "Attempt",
    "Database",
    "Expect",
    "Interval",
    "Pipeline",
    "Retry",
    "__version__",
    "by",
    "pipeline",
    "resource",
    "step",
    "use",
    "when",
]


def __getattr__(name: str) -> Any:
    """A public name, from the module it lives in, imported when first asked for."""
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"farandole.{_HOME[name]}"), name)


class _Package(ModuleType):
    """The package, in which `pipeline` is always the author's word, never the module of the same name.

    Python binds a submodule to its package when it is first imported, which would hide the word.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "pipeline" and isinstance(value, ModuleType):
            value = value.pipeline
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
