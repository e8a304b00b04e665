"""After a crash between Kafka commit and settle: what may the successor write into the dedup table?

Below the committed offset every record has an outcome, but not every outcome is "done": one that was
parked comes back from the retry topic, one that died comes back when it is redriven. Whoever marks the
whole gap as settled makes their second copy a duplicate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests.models.explorer import explore


class Gap(NamedTuple):
    """One record between the SQL position and the committed offset."""

    outcome: str  # what the crashed transaction did with it
    row: str | None = None  # what the dedup table says after the repair
    second_copy: str = "to come"  # from the retry topic, or redriven
    runs: int = 0


def anomalies(outcome: str, repair: Callable[[str], str]) -> frozenset[str]:
    def successors(world: Gap) -> tuple[list[Gap], list[Gap]]:
        if world.row is None:
            return [world._replace(row=repair(world.outcome))], []
        if world.second_copy == "to come" and world.outcome != "done":
            if world.row == "done":
                return [world._replace(second_copy="dropped as a duplicate")], []
            return [world._replace(second_copy="ran", row="done", runs=world.runs + 1)], []
        return [], []

    def wrong(world: Gap) -> Iterator[str]:
        if world.second_copy == "dropped as a duplicate" and world.runs == 0:
            yield f"{world.outcome} event lost"

    return explore(Gap(outcome), successors, wrong).anomalies


@pytest.mark.parametrize("outcome", ["done", "parked", "dead"])
def test_outcomes_read_from_the_ledger_lose_nothing(outcome):
    assert anomalies(outcome, repair=lambda ledger: ledger) == set()


@pytest.mark.parametrize("outcome", ["parked", "dead"])
def test_marking_the_whole_gap_as_settled_loses_what_was_parked_or_dead(outcome):
    assert anomalies(outcome, repair=lambda ledger: "done") == {f"{outcome} event lost"}
