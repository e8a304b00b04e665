"""The Faust app of the rhythm: what is told and what is kept, in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from farandole.completion import Completion
from farandole.topics import RHYTHM, own_schemas
from services.rhythm.service import learn

DONE = Completion("run", "mart", datetime(2026, 11, 30, 6, 20, tzinfo=UTC))


class Days(dict[str, Any]):
    """A windowed table with one window."""

    def tumbling(self, *_: object, **__: object) -> Days:
        return self

    def relative_to(self, _: object) -> Days:
        return self

    def __missing__(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(value=lambda _: {})


class App:
    """What of a Faust app is used, without a broker: rows are acknowledged by `acknowledge`."""

    def __init__(self, acknowledge: Callable[[], Any]) -> None:
        self.conf, self.days, self.acknowledge = SimpleNamespace(topic_partitions=1), Days(), acknowledge

    def topic(self, name: str, **_: object) -> Any:
        async def send(**_: object) -> Any:
            return self.acknowledge()

        return SimpleNamespace(name=name, send=send)

    def Table(self, *_: object, **__: object) -> Days:  # noqa: N802 - as Faust has it
        return self.days

    def agent(self, _: object) -> Callable[[Any], Any]:
        def keep(of: Any) -> Any:
            self.add_up = of
            return of

        return keep


def test_a_day_that_could_not_be_told_is_not_kept_so_that_it_is_told_again():
    async def lost() -> None:
        raise ConnectionError(RHYTHM)

    async def events() -> Any:
        yield SimpleNamespace(value={**DONE.record()})

    app = App(lost)
    learn(app, SimpleNamespace(schemas=own_schemas()))  # type: ignore[arg-type]

    with pytest.raises(ConnectionError):
        asyncio.run(app.add_up(SimpleNamespace(events=events)))

    assert app.days == {}
