"""Event classes for tests on a stage, short to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farandole.event import fact


def event(event_type: str, *key: str):
    """An event class without a schema: what `farandole schemas generate` writes, in short."""

    def label(cls: Any) -> Any:
        names = list(cls.__annotations__)
        cls.of = classmethod(lambda c, record: c(**{n: record[n] for n in names}))
        cls.record = lambda self: {n: getattr(self, n) for n in names}
        return fact(event_type, key=key)(dataclass(frozen=True)(cls))

    return label
