"""Pipelines that start because something happened.

What an author imports: ``from farandole import Pipeline, Retry, by, step, when``. This import loads
neither Kafka, SQL nor pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Attempt": "run",
    "Database": "resources",
    "Interval": "event",
    "Pipeline": "pipeline",
    "Retry": "declaration",
    "by": "pipeline",
    "pipeline": "pipeline",
    "resource": "pipeline",
    "step": "pipeline",
    "when": "pipeline",
}

if TYPE_CHECKING:
    from farandole.declaration import Retry as Retry
    from farandole.event import Interval as Interval
    from farandole.pipeline import Pipeline as Pipeline
    from farandole.pipeline import by as by
    from farandole.pipeline import pipeline as pipeline
    from farandole.pipeline import resource as resource
    from farandole.pipeline import step as step
    from farandole.pipeline import when as when
    from farandole.resources import Database as Database
    from farandole.run import Attempt as Attempt

__all__ = [*sorted(_HOME), "__version__"]
