"""What the library costs between a record and the author's function: abstraction has a price tag.

Counted on a stage, where every call of the loop is the library's own. Two things are left out because a stage has
its own: the clock that a test moves, and the lists in Kafka's place; the codec's cost is the record's, and bench/
measures it.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import farandole
from farandole import Pipeline, when
from farandole.testing import Stage
from tests.unit.test_stage import FileCounted, FileLanded

LIBRARY = str(Path(farandole.__file__).parent)
NOT_COUNTED = tuple(f"{LIBRARY}/{part}" for part in ("testing/", "kafka/", "clock.py"))
FRAMES, CALLS = 4, 60

seen: list[str] = []


def count(file: FileLanded) -> FileCounted:
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_qualname != "_Inline.ended":
        seen.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return FileCounted(file.uri, 1)


class Counts(Pipeline):
    """Count the rows of every file."""

    file = when(FileLanded, where="format == 'csv'")
    steps = [count]
    since = "now"


def test_at_most_four_frames_stand_between_the_worker_and_the_authors_function():
    seen.clear()
    Stage(Counts).tell(FileLanded("s3://a", "erp", "csv"))

    assert seen[0] == "count"
    assert len(seen[1:]) <= FRAMES, seen[1:]


def test_a_one_step_event_costs_at_most_sixty_calls_of_the_library():
    events, stage = [FileLanded(f"s3://{n}", "erp", "csv") for n in range(201)], Stage(Counts)
    stage.tell(events[0])  # what is done once is done
    calls: Counter[str] = Counter()

    def on_call(frame: FrameType, kind: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if kind == "call" and file.startswith(LIBRARY) and not file.startswith(NOT_COUNTED):
            calls[f"{Path(file).name}:{frame.f_code.co_qualname}"] += 1

    turn, stage._turn = stage._turn, lambda: None  # one batch, as a service takes them
    stage.tell(*events[1:])
    sys.setprofile(on_call)
    try:
        turn()
    finally:
        sys.setprofile(None)

    assert len(stage.sent) == 201
    per_event = calls.total() / 200
    assert per_event <= CALLS, f"{per_event:.1f} calls an event: {calls.most_common(70)}"
