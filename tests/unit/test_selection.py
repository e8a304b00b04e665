"""Which letters are meant, what became of each, and which belong together."""

from __future__ import annotations

import pytest

from farandole.deadletter import DeadLetter, Failure, LetterContext, letter_of
from farandole.errors import FarandoleError
from farandole.event import RawRecord
from farandole.selection import (
    AGAIN,
    INCOMPLETE,
    OPEN,
    RESOLVED,
    SETTLED,
    UNCERTAIN,
    UNDER_WAY,
    UNKNOWN,
    Case,
    Found,
    Selection,
    Standing,
    cases_of,
    state_of,
)


def a_letter(run, offset, *, life=0, at=1000, key=b"k", fingerprint="f1", part=1, parts=1, event=""):
    raw = RawRecord("in.v1", "T", 0, offset, 500, key, b"v", [("ce_id", event.encode())] if event else [])
    where = LetterContext("dlq.merge", 4, "merge", "1", run, life, b"\x01", part, parts)
    made = letter_of(raw, Failure("ValueError", "no", "run", "write", fingerprint=fingerprint), where)
    return DeadLetter.of(RawRecord("dlq.merge", "D", 0, offset, at, made.key, made.value, made.headers))


def found(letters, **wanted):
    one = Found(Selection(**wanted))
    one.add(letters)
    return one


@pytest.mark.parametrize(
    ("standing", "state"),
    [
        (None, OPEN),
        (Standing(1, "dead"), OPEN),
        (Standing(2, "parked"), UNDER_WAY),
        (Standing(2, "dead"), AGAIN),
        (Standing(2, "uncertain"), UNCERTAIN),
        (Standing(2, "resolved"), RESOLVED),
        (Standing(2, "done"), SETTLED),
        (Standing(1, "done"), SETTLED),  # settled some other way, in whatever life
        (Standing(9, "caught"), SETTLED),
    ],
)
def test_a_letter_is_open_until_its_next_life_is_known(standing, state):
    assert state_of(1, standing) == state


@pytest.mark.parametrize(
    ("wanted", "runs"),
    [
        ({}, ["r1", "r2", "r3"]),
        ({"ids": ("r2",)}, ["r2"]),
        ({"ids": ("event-3",)}, ["r3"]),
        ({"group": "f2"}, ["r2"]),
        ({"key": b"x".hex()}, ["r3"]),
        ({"since": 2000}, ["r2", "r3"]),
        ({"since": 2000, "until": 3000}, ["r2"]),
        ({"group": "f1", "until": 2000}, ["r1"]),
    ],
)
def test_letters_are_meant_by_id_cause_key_and_time(wanted, runs):
    letters = [
        a_letter("r1", 1, at=1000),
        a_letter("r2", 2, at=2000, fingerprint="f2"),
        a_letter("r3", 3, at=3000, key=b"x", event="event-3"),
    ]

    assert [case.run_id for case in found(letters, **wanted).cases()] == runs


def test_the_oldest_go_first_wherever_they_stand():
    letters = [a_letter("late", 1, at=3000), a_letter("early", 2, at=1000), a_letter("middle", 3, at=2000)]

    one = found(letters)

    assert [case.run_id for case in one.cases()] == ["early", "middle", "late"]
    assert one.oldest == 1000


def test_all_letters_of_a_joined_run_go_together_even_if_one_of_them_is_meant():
    letters = [
        a_letter("joined", 7, key=b"b", part=2, parts=2),
        a_letter("other", 8),
        a_letter("joined", 9, key=b"a", part=1, parts=2),
    ]

    (case,) = found(letters, key=b"a".hex()).cases()

    assert case == Case("joined", 0, ((0, 9), (0, 7)))


def test_a_joined_run_of_which_a_letter_is_gone_is_left_out_and_counted():
    one = found([a_letter("joined", 7, part=2, parts=3), a_letter("joined", 8, part=1, parts=3)])

    assert one.cases() == []
    assert one.left_out == {INCOMPLETE: 2}


def test_a_letter_that_names_no_topic_to_run_it_from_is_left_out_and_counted():
    one = found([DeadLetter.of(RawRecord("dlq.merge", "D", 0, 1, 1000, b"k", b"v", []))])

    assert one.cases() == []
    assert one.left_out == {UNKNOWN: 1}


def test_lives_of_one_run_are_cases_of_their_own():
    lives = found([a_letter("r", 1, life=0), a_letter("r", 2, life=1)]).cases()

    assert [(case.run_id, case.life) for case in lives] == [("r", 0), ("r", 1)]


def test_an_id_that_names_none_or_several_is_refused():
    letters = [a_letter("run-1", 1), a_letter("run-2", 2)]

    with pytest.raises(FarandoleError, match="no dead letter 'other'"):
        found(letters, ids=("other",)).cases()
    with pytest.raises(FarandoleError, match="more than one run begin with 'run-'"):
        found(letters, ids=("run-",)).cases()


def test_cases_are_made_again_from_their_places_without_those_that_are_gone():
    letters = [a_letter("a", 1, part=1, parts=2), a_letter("a", 2, part=2, parts=2), a_letter("b", 3)]
    places = [(0, n) for n in range(1, 6)]

    whole = {(0, letter.raw.offset): letter for letter in letters}
    assert cases_of(places, whole) == [Case("a", 0, ((0, 1), (0, 2))), Case("b", 0, ((0, 3),))]
    del whole[0, 2]
    assert cases_of(places, whole) == [Case("b", 0, ((0, 3),))]
