"""The topics of our own that all pipelines share, the schemas of their records, and the mark of a seeded offset."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

LEDGER = "farandole.ledger.v1"
"""Compacted: how every run stands."""
CONTROL = "farandole.control.v1"
"""Compacted: what is wanted of running services; the newest command per pipeline and run."""
AUDIT = "farandole.audit.v1"
"""Never compacted: every command that was given, in the same shape as on the control topic."""
EXPECTATIONS = "farandole.expectations.v1"
"""Compacted: what must have come by when, written ahead, and how each expectation stands."""
BEATS = "farandole.beats.v1"
"""Compacted: the newest beat of every instance of the services that watch over others."""
TELEMETRY = "farandole.telemetry.v1"
"""Not compacted, and never written in a transaction: what is done, for statistics."""
RHYTHM = "farandole.rhythm.v1"
"""Compacted: when what is done came on each day, as the service of that name has added it up."""

TICKS = "clock.ticked.v1"
"""What the clock tells. An event type like any other: its schema stands in the repository, not here."""

SEED_MARK = "farandole:seed"
"""The metadata that seeded offsets carry. It says where a *new* group begins, and is no request to rewind."""


def own_schema_file(topic: str) -> Path:
    """The file of a topic's schema in the library."""
    return Path(str(files("farandole"))) / "avro" / f"{CONTROL if topic == AUDIT else topic}.avsc"


@cache
def own_schemas() -> dict[str, dict[str, Any]]:
    """The Avro schema of each of these topics, as this version writes and reads it."""
    return {
        topic: json.loads(own_schema_file(topic).read_text(encoding="utf-8"))
        for topic in (LEDGER, CONTROL, AUDIT, EXPECTATIONS, BEATS, TELEMETRY, RHYTHM)
    }
