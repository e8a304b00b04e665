"""What a sweep finds besides missed events: each with its kind, and told when it begins and when it is over. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from farandole.kafka.permissions import Denied

KINDS: dict[str, str] = {
    "matches-nothing": "a subscription takes none of the events that come, though it did, or never did",
    "denied": "a principal may not do what the pipeline needs, by ACL",
    "abandoned": "a run began and has no end, and nobody holds it",
    "outputs-gone": "a run is done, and events that it has emitted are not in their topic",
    "nobody-takes": "events were refused by every pipeline that listens to their topic",
    "nobody-listens": "a topic has events, and no pipeline listens to it",
}
"""Every kind of finding, and what it means."""

HINTS = frozenset({"nobody-takes", "nobody-listens"})
"""The kinds that may be as somebody wants it: they are told, and nobody has to come."""

_AT_MOST = 50  # findings that a fact carries


@dataclass(frozen=True, slots=True)
class Finding:
    """One of :data:`KINDS`. It stays the same finding while `kind`, `pipeline`, `topic` and `subject` do."""

    kind: str
    pipeline: str
    topic: str
    says: str
    subject: str = ""
    following: str = ""

    @property
    def id(self) -> str:
        """What it is told once under."""
        return f"{self.kind}/{self.pipeline}/{self.topic}/{self.subject}"

    @property
    def hint(self) -> bool:
        """Whether nobody has to come."""
        return self.kind in HINTS

    def record(self) -> dict[str, object]:
        """As JSON has it."""
        return {"kind": self.kind, "hint": self.hint, "says": self.says, "next": self.following or None}


@dataclass(slots=True)
class Findings:
    """What stands, and what began or ended with this sweep."""

    standing: list[Finding] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Of what stands."""
        return [one.id for one in self.standing]

    @property
    def changed(self) -> bool:
        """Whether there is something to tell that was not told before."""
        return bool(self.begun or self.ended)

    @property
    def attention(self) -> bool:
        """Whether a person should look."""
        return any(not one.hint for one in self.standing)

    def of(self, topic: str | None) -> list[dict[str, object]]:
        """Those about a topic, or about none."""
        return [one.record() for one in self.standing if (one.topic or None) == topic]

    def told(self) -> dict[str, str]:
        """As a fact carries them."""
        records = [{**one.record(), "topic": one.topic} for one in self.standing[:_AT_MOST]]
        return {
            "findings": json.dumps(records, ensure_ascii=False) if records else "",
            "begun": "; ".join(self.begun[:_AT_MOST]),
            "ended": "; ".join(self.ended[:_AT_MOST]),
        }


def compared(standing: Sequence[Finding], before: Collection[str]) -> Findings:
    """What stands now against the ids that stood at the sweep before."""
    now: Iterable[str] = [one.id for one in standing]
    return Findings(list(standing), [one for one in now if one not in before], sorted({*before} - {*now}))


def partly(standing: Sequence[Finding], kind: str, before: Collection[str]) -> Findings:
    """The same where only one kind could be looked for."""
    return compared(standing, [one for one in before if one.startswith(f"{kind}/")])


def forbidden(pipeline: str, denied: Denied) -> Finding:
    """That somebody may not do what a pipeline needs."""
    right = denied.right
    look = f"kafka-acls.sh --bootstrap-server … --list --{right.kind} {right.name}"
    about = right.name if right.kind == "topic" else ""
    return Finding("denied", pipeline, about, str(denied), f"{denied.principal} {right}".strip(), look)
