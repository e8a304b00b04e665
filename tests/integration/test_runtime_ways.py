"""What a run is, seen from outside: its outputs, its entry, its steps, its end."""

from __future__ import annotations


def test_numbers_are_doubled_each_once_and_the_ledger_has_an_entry_for_each(world):
    world.create("Double")
    world.send(range(50))
    world.send(range(10))  # told again
    world.send([100, 101], kind="skip")
    world.drain("Double")
    assert world.outputs() == [2 * n for n in range(50)]
    assert len(world.runs("Double", "done")) == len(world.runs("Double")) == 50
    assert world.filtered("Double") == {"not (kind != 'skip')": 2}
