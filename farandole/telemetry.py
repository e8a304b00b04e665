"""What a service says: one JSON object per line on standard error, or coloured text on a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog


def logger(pipeline: str, instance: str) -> Callable[..., None]:
    """`say(event, **fields)` for one instance of a pipeline. Values of events are never among the fields."""
    told = structlog.get_logger("farandole").bind(pipeline=pipeline, instance=instance)

    def say(event: str, **fields: Any) -> None:
        told.info(event, **{k: v for k, v in fields.items() if v is not None})

    return say


def configure(level: str = "info") -> None:
    """Once per process: where the lines go and what they look like."""
    pretty = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
