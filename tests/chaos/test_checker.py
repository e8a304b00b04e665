"""The checker finds each anomaly that is planted, by its name and no other, and nothing in a whole history."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import checker
from tests.chaos.checker import Entry, History, Landed, Letter, Output, Row, judge

IN, OUT = "in", "out"
HEADERS = (("ce_id", b"x"), ("ce_source", b"/plant"))


def landed(offset: int, what: int, kind: str = "good", key: bytes = b"k") -> Landed:
    return Landed((IN, 0, offset), f"e{what}", key, kind, what, b"v%d" % what, HEADERS)


def whole(**known) -> History:
    """Six records: two that are done, one that is filtered, one that is dead, a copy, and one told at the end."""
    history = History(
        landed=[landed(0, 0), landed(1, 1), landed(2, 2, "skip"), landed(3, 3, "bad"), landed(4, 1), landed(5, 5)],
        outputs=[Output((OUT, 0, 0), "o0", b"k", 0), Output((OUT, 0, 2), "o1", b"k", 1), Output((OUT, 0, 6), "o5", b"k", 5)],
        ledger=[
            Entry("r0", "done", ((IN, 0, 0),), ("o0",)),
            Entry("r1", "done", ((IN, 0, 1),), ("o1",)),
            Entry("range", "range", filtered=((IN, 0, 2),), duplicates=((IN, 0, 4),)),
            Entry("r3", "dead", ((IN, 0, 3),)),
            Entry("r5", "done", ((IN, 0, 5),), ("o5",)),
            Entry("a fact", "fact", fact="offset.expired"),
        ],
        letters=[Letter("r3", (IN, 0, 3), b"k", b"v3", HEADERS)],
        rows=[Row(b"0", "r0", "done"), Row(b"1", "r1", "done"), Row(b"5", "r5", "done")],
        committed={(IN, 0): 6},
        positions={(IN, 0): 6},
        ends={(IN, 0): (6, 6), (OUT, 0): (8, 8)},
        **known,
    )  # fmt: skip
    history.written = [*history.outputs, Output((OUT, 0, 4), "o5", b"k", 5)]  # once aborted, once committed
    return history


def found(history: History) -> set[str]:
    return {anomaly.name for anomaly in judge(history)}


def test_a_whole_history_has_no_anomaly():
    assert judge(whole()) == []
    assert judge(whole(effects=[0, 1, 5])) == []
    assert judge(whole(calls=[("a", 0), ("b", 1), ("b", 1), ("c", 5)], effect="idempotent")) == []


def without_entry(history: History, run: str) -> None:
    history.ledger = [e for e in history.ledger if e.id != run]


def lost(history: History) -> None:
    without_entry(history, "r5")
    history.outputs.pop()
    history.rows.pop()


def lost_behind_a_duplicate(history: History) -> None:
    history.landed.append(landed(6, 7))
    history.ledger.append(Entry("range", "range", duplicates=((IN, 0, 6),)))
    history.committed[(IN, 0)] = history.positions[(IN, 0)] = 7
    history.ends[(IN, 0)] = (7, 7)


def skipped(history: History) -> None:
    """The copy was jumped over: nothing is lost, and nothing says that it was seen."""
    history.ledger[2] = history.ledger[2]._replace(duplicates=())


def output_twice(history: History) -> None:
    history.outputs.append(Output((OUT, 0, 7), "o5", b"k", 5))


def settled_twice(history: History) -> None:
    history.ledger.append(history.ledger[0])


def left_after_done(history: History) -> None:
    history.ledger.append(Entry("r0", "parked", ((IN, 0, 0),), life=1))
    history.expected = {}


def two_runs_of_one_event(history: History) -> None:
    history.ledger[2] = history.ledger[2]._replace(duplicates=())
    history.ledger.append(Entry("r1-again", "done", ((IN, 0, 4),)))


def two_letters(history: History) -> None:
    history.letters *= 2


def two_rows(history: History) -> None:
    history.rows.append(history.rows[0])


def output_of_nobody(history: History) -> None:
    history.outputs.append(Output((OUT, 0, 7), "o9", b"k", None))


def letter_of_nobody(history: History) -> None:
    history.letters.append(Letter("r0", (IN, 0, 0), b"k", b"v0", HEADERS))


def effect_of_nobody(history: History) -> None:
    history.effects = [0, 1, 3, 5]


def half_a_run(history: History) -> None:
    history.ledger[0] = history.ledger[0]._replace(outputs=("o0", "o0b"))
    history.written.append(Output((OUT, 0, 1), "o0b"))


def dead_without_letter(history: History) -> None:
    history.letters.clear()


def done_without_effect(history: History) -> None:
    history.effects = [0, 5]


def outputs_overtake(history: History) -> None:
    first, second, third = history.outputs
    history.outputs = [first, second._replace(at=third.at), third._replace(at=second.at)]


def effects_overtake(history: History) -> None:
    history.effects = [0, 5, 1]


def calls_overtake(history: History) -> None:
    history.calls, history.effect = [("a", 0), ("c", 5), ("b", 1)], "idempotent"


def beyond_the_end(history: History) -> None:
    history.committed[(IN, 0)] = history.positions[(IN, 0)] = 9


def two_truths(history: History) -> None:
    history.positions[(IN, 0)] = 4


def undecided(history: History) -> None:
    history.ends[(OUT, 0)] = (7, 8)


def unpublished(history: History) -> None:
    history.unpublished = ["r5"]


def only_sql_knows(history: History) -> None:
    history.rows.append(Row(b"9", "r9", "done"))


def done_twice(history: History) -> None:
    history.effects = [0, 1, 5, 1]


def two_keys_outside(history: History) -> None:
    history.calls, history.effect = [("a", 0), ("b", 1), ("z", 1), ("c", 5)], "idempotent"


def sent_twice(history: History) -> None:
    history.calls, history.effect = [("a", 0), ("b", 1), ("b", 1), ("c", 5)], "at_most_once"


def uncertain(history: History, *, effect: str, doubted: set[str]) -> None:
    history.ledger[4] = history.ledger[4]._replace(state="uncertain", outputs=())
    history.outputs.pop()
    history.effect, history.doubted, history.expected = effect, doubted, {}


def never_started(history: History) -> None:
    uncertain(history, effect="at_most_once", doubted=set())


def of_an_effect_with_a_key(history: History) -> None:
    uncertain(history, effect="idempotent", doubted={"r5"})


def dead_for_no_fault_of_its_own(history: History) -> None:
    history.ledger[4] = Entry("r5", "dead", ((IN, 0, 5),))
    history.outputs.pop()
    history.letters.append(Letter("r5", (IN, 0, 5), b"k", b"v5", HEADERS))


def another_answer(history: History) -> None:
    history.outputs[0] = history.outputs[0]._replace(what=17)


def other_bytes(history: History) -> None:
    history.letters[0] = history.letters[0]._replace(value=b"v3 ")


def other_headers(history: History) -> None:
    history.letters[0] = history.letters[0]._replace(headers=HEADERS[:1])


def of_no_record(history: History) -> None:
    history.letters[0] = history.letters[0]._replace(at=(IN, 3, 3))


PLANTED: dict[str, tuple[Callable[[History], None], ...]] = {
    "lost-write": (lost, lost_behind_a_duplicate),
    "poll-skip": (skipped,),
    "duplicate": (output_twice, settled_twice, left_after_done, two_runs_of_one_event, two_letters, two_rows),
    "aborted-read": (output_of_nobody, letter_of_nobody, effect_of_nobody),
    "torn": (half_a_run, dead_without_letter, done_without_effect),
    "non-monotonic": (outputs_overtake, effects_overtake, calls_overtake),
    "inconsistent-offset": (beyond_the_end, two_truths),
    "unseen": (undecided, unpublished, only_sql_knows),
    "double-effect": (done_twice, two_keys_outside, sent_twice),
    "uncertain-without-doubt": (never_started, of_an_effect_with_a_key),
    "wrong-outcome": (dead_for_no_fault_of_its_own, another_answer),
    "bytes-of-letters": (other_bytes, other_headers, of_no_record),
}


@pytest.mark.parametrize(("name", "plant"), [(name, plant) for name, plants in PLANTED.items() for plant in plants])
def test_what_is_planted_is_found_by_its_name_and_nothing_else(name: str, plant: Callable[[History], None]):
    history = whole()
    plant(history)
    assert found(history) == {name}


def test_a_doubt_that_is_one_is_none_of_the_checkers_business():
    history = whole()
    uncertain(history, effect="at_most_once", doubted={"r5"})
    history.rows.pop()
    assert judge(history) == []


def test_a_redriven_run_may_die_again_and_end_done_and_keeps_no_order():
    history = whole()
    history.ledger += [
        Entry("r3", "dead", ((IN, 0, 3),), life=1),
        Entry("r3", "done", ((IN, 0, 3),), ("o3",), life=2),
    ]
    history.letters.append(history.letters[0]._replace(life=1))
    history.outputs.append(Output((OUT, 0, 9), "o3", b"k", 3))
    history.expected = {"bad": {"done"}}
    assert judge(history) == []


def test_a_letter_that_a_person_resolved_has_one_outcome():
    history = whole()
    history.ledger.append(Entry("r3", "resolved", ((IN, 0, 3),)))
    history.expected = {"bad": {"resolved"}}
    assert judge(history) == []


def test_other_keys_and_other_partitions_owe_each_other_no_order():
    history = whole()
    history.landed[5] = history.landed[5]._replace(key=b"other")
    outputs_overtake(history)
    assert judge(history) == []


def test_an_event_that_was_told_under_two_keys_or_on_two_partitions_keeps_no_order():
    for astray in (landed(9, 1)._replace(at=(IN, 1, 9)), landed(9, 1, key=b"other")):
        history = whole()
        history.landed.append(astray)
        outputs_overtake(history)
        calls_overtake(history)
        assert judge(history) == []


def test_an_event_that_was_told_twice_in_its_own_place_keeps_its_order():
    history = whole()
    history.landed.append(landed(9, 1))
    outputs_overtake(history)
    assert found(history) == {"non-monotonic"}


def test_the_checker_knows_nothing_of_the_library():
    read = ast.parse(Path(checker.__file__).read_text())
    imports = {a.name for n in ast.walk(read) if isinstance(n, ast.Import) for a in n.names}
    imports |= {n.module for n in ast.walk(read) if isinstance(n, ast.ImportFrom)}
    assert [name for name in imports if name.split(".")[0] in {"farandole", "tests"}] == []
