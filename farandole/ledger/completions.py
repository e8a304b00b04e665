"""What the ledger says is done, told on a plain topic: for readers that do not know transactions, such as Faust."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from farandole.completion import Completion
from farandole.event import Record
from farandole.ledger.projection import Line
from farandole.topics import TELEMETRY


class Completions:
    """Tells completions before the projection has taken their lines: at least once, each under its run's id."""

    def __init__(
        self, encode: Callable[[str, dict[str, Any]], bytes], send: Callable[[Sequence[Record]], object]
    ) -> None:
        self._encode, self._send = encode, send

    def tell(self, lines: Sequence[Line]) -> None:
        """Tell what of these lines is done. Raises Unreachable; then none of them counts as taken."""
        done = [told for line in lines if (told := completion(line)) is not None]
        if done:
            self._send([Record(TELEMETRY, c.pipeline.encode(), self._encode(TELEMETRY, c.record()), []) for c in done])


def completion(line: Line) -> Completion | None:
    """What a line of the ledger tells of a run that is done; None for any other line."""
    entry = line.entry
    if entry is None or entry.kind != "run" or entry.state != "done":
        return None
    started = entry.started_at
    return Completion(
        entry.id,
        entry.pipeline,
        datetime.fromtimestamp(line.recorded_at / 1000, UTC),
        entry.epoch,
        datetime.fromtimestamp(started / 1000, UTC) if isinstance(started, int) else started,
        entry.interval,
    )
