"""Redriving a dead letter: why a redrive starts a new life instead of repeating or forgetting the key.

Two workers; the source record was delivered twice; the operator clicks twice; a worker may crash once, and
every run may succeed or fail. A row remembers (state, life, fence); only life = row.life + 1 may run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.models.explorer import explore

TWO_SUCCESSES, STUCK, TWO_LETTERS, DROPPED = (
    "ran successfully twice",
    "stuck",
    "dead-lettered twice in one life",
    "redrive silently dropped",
)


class Row(NamedTuple):
    """What SQL knows of the key. An orphan is a claim whose worker crashed."""

    state: str  # claimed, done, dead
    life: int
    fence: int
    orphan: bool = False


class Letters(NamedTuple):
    """Deliveries under way (by their life), the two workers, and what came of it."""

    row: Row | None = None
    deliveries: tuple[int, ...] = (0, 0)
    workers: tuple[tuple[int, int] | None, ...] = (None, None)  # (life, fence) at work
    successes: int = 0
    letters: tuple[int, ...] = ()  # the life of each dead letter
    clicks: int = 2
    crashes: int = 1

    def work_at(self, who: int, work: tuple[int, int] | None) -> Letters:
        return self._replace(workers=tuple(work if k == who else w for k, w in enumerate(self.workers)))

    def delivered(self, life: int) -> Letters:
        return self._replace(deliveries=tuple(sorted((*self.deliveries, life))))


@dataclass(frozen=True)
class Rule:
    """How a redrive meets the dedup table."""

    counts_lives: bool = True
    deletes_row: bool = False

    def redrive(self, world: Letters) -> Letters:
        clicked = world._replace(clicks=world.clicks - 1)
        if self.deletes_row:
            return clicked._replace(row=None).delivered(0)
        return clicked.delivered(max(world.letters) + 1)

    def claim(self, row: Row | None, life: int) -> Row | str:
        """The claimed row, or "drop" or "wait"."""
        if row is None:
            return Row("claimed", life, 1)
        if row.state == "dead" and self.counts_lives and life == row.life + 1:
            return Row("claimed", life, row.fence + 1)
        if row.state != "claimed" or (self.counts_lives and life < row.life):
            return "drop"
        return Row("claimed", life, row.fence + 1) if row.orphan else "wait"


def anomalies(rule: Rule) -> frozenset[str]:
    def successors(world: Letters) -> tuple[list[Letters], list[Letters]]:
        work: list[Letters] = []
        faults: list[Letters] = []
        for who, busy in enumerate(world.workers):
            if busy is None:
                work += deliveries(world, who)
            else:
                work += ends(world, who, busy)
                if world.crashes:
                    faults.append(crash(world, who, busy))
        if world.clicks and world.letters:
            faults.append(rule.redrive(world))
        return work + [f for f in faults if f.clicks == world.clicks], [f for f in faults if f.clicks != world.clicks]

    def deliveries(world: Letters, who: int) -> Iterator[Letters]:
        for life in set(world.deliveries):
            rest = list(world.deliveries)
            rest.remove(life)
            taken = world._replace(deliveries=tuple(rest))
            claimed = rule.claim(world.row, life)
            if isinstance(claimed, Row):
                yield taken._replace(row=claimed).work_at(who, (life, claimed.fence))
            elif claimed == "drop":
                yield taken

    def holds(world: Letters, fence: int) -> bool:
        return world.row is not None and world.row.state == "claimed" and world.row.fence == fence

    def ends(world: Letters, who: int, busy: tuple[int, int]) -> Iterator[Letters]:
        life, fence = busy
        free = world.work_at(who, None)
        if holds(world, fence):
            yield free._replace(row=Row("done", life, fence), successes=world.successes + 1)
            yield free._replace(row=Row("dead", life, fence), letters=tuple(sorted((*world.letters, life))))
        else:
            yield free

    def crash(world: Letters, who: int, busy: tuple[int, int]) -> Letters:
        life, fence = busy
        left = world.row._replace(orphan=True) if world.row and holds(world, fence) else world.row
        return world._replace(row=left, crashes=0).work_at(who, None).delivered(life)

    def wrong(world: Letters) -> Iterator[str]:
        if world.successes > 1:
            yield TWO_SUCCESSES
        if world.row is not None and world.row.state == "claimed":
            yield STUCK
        if len(world.letters) != len(set(world.letters)):
            yield TWO_LETTERS
        if world.successes == 0 and world.clicks == 0 and len(world.letters) == 1:
            yield DROPPED

    return explore(Letters(), successors, wrong).anomalies


def test_a_redrive_that_starts_a_new_life_runs_once_however_often_it_is_clicked():
    assert anomalies(Rule()) == set()


def test_a_redrive_with_the_same_key_and_no_life_is_dropped_by_the_dedup_table():
    assert anomalies(Rule(counts_lives=False)) == {DROPPED}


def test_a_redrive_that_deletes_the_dedup_row_runs_twice():
    assert anomalies(Rule(counts_lives=False, deletes_row=True)) == {TWO_SUCCESSES, TWO_LETTERS}
