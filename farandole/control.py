"""What is wanted of running services: commands, as they stand on the compacted control topic.

A command is a wish with an author and a reason. It needs no server of ours: whoever can write to the topic
steers, and a service that was away reads what stands there when it comes back. Imports neither Kafka nor SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

PAUSE, RESUME = "pause", "resume"
CANCEL, RELEASE, RESCHEDULE = "cancel", "release", "reschedule"
ACCEPT = "accept"
CLOSE = "close"
WAIVE = "waive"
PLAN, PROGRESS = "plan", "progress"
ORDER = "order"
OF_PIPELINES, OF_RUNS = (PAUSE, RESUME), (CANCEL, RELEASE, RESCHEDULE)


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `id` is its record key: of commands with one id the newest stands.

    `at` (given) and `due` (of a reschedule: not before) are milliseconds since 1970. `ids` are the letters of a
    plan, or of its progress. `pipeline` is empty where only the run is named.
    """

    id: str
    kind: str
    pipeline: str = ""
    run_id: str = ""
    actor: str = ""
    reason: str = ""
    at: int = 0
    due: int | None = None
    detail: dict[str, str] = field(default_factory=dict)
    ids: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The Avro record."""
        return {
            "id": self.id,
            "kind": self.kind,
            "pipeline": self.pipeline,
            "run_id": self.run_id,
            "actor": self.actor,
            "reason": self.reason,
            "at": self.at,
            "due": self.due,
            "detail": self.detail,
            "ids": list(self.ids),
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Command:
        """From a decoded Avro record; fields that a newer writer added are left out."""
        known = {name: record[name] for name in cls.__slots__ if name in record}
        for name in ("at", "due"):
            known[name] = _millis(known.get(name))
        return cls(**{**known, "at": known["at"] or 0, "ids": tuple(known.get("ids", ()))})

    @property
    def key(self) -> bytes:
        """The record key on the topic."""
        return self.id.encode()


def pipeline_id(pipeline: str) -> str:
    """The id that pause and resume of a pipeline share, so that the newest of them stands."""
    return f"pipeline:{pipeline}"


def run_id_of(run_id: str) -> str:
    """The id of commands for one run."""
    return f"run:{run_id}"


def topic_id_of(topic: str) -> str:
    """The id of commands for one topic."""
    return f"topic:{topic}"


def cut_id_of(topic_id: str, partition: int, offset: int) -> str:
    """The id of commands for a partition whose log ends before the offset where a pipeline was to go on."""
    return f"cut:{topic_id}/{partition}/{offset}"


def gap_id_of(gap: str) -> str:
    """The id of commands for one gap."""
    return f"gap:{gap}"


def books_id(pipeline: str, interval: str) -> str:
    """The id of acts on the books of an interval."""
    return f"books:{pipeline}:{interval}"


def expectation_id(name: str) -> str:
    """The id of acts on one expectation."""
    return f"expectation:{name}"


def order_id(order: str) -> str:
    """The id of an order to process events again, whatever its state."""
    return f"order:{order}"


def plan_id(plan: str, part: str | int = "") -> str:
    """The id of a plan, or of one part of it. ``plan:<plan>:`` begins those of all its parts."""
    return f"plan:{plan}:{part}" if part != "" else f"plan:{plan}"


def _millis(moment: datetime | int | None) -> int | None:
    return round(moment.timestamp() * 1000) if isinstance(moment, datetime) else moment
