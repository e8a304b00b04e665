"""Letters of other writers are taken in as if their pipeline had given up, and letters are exported and read back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from farandole.causes import count, with_states
from farandole.deadletter import DeadLetter, Failure, LetterContext, letter_of
from farandole.declaration import Declaration
from farandole.errors import Undecodable
from farandole.event import RawRecord
from farandole.ids import dead_letter_id, event_key, fields_key, position_key, run_id
from farandole.letters import Adoption, DeclaredKeys, exported, imported
from tests.unit.test_deadletter import CONNECT, OWN, SPRING


def adopted(headers, *, topic="dlq.merge", ids=None, declared=lambda _: None, value=b"v"):
    ids = {"in.v1": "T1"} if ids is None else ids
    adopt = Adoption("merge", lambda names: {n: ids[n] for n in names if n in ids}, declared)
    return adopt(DeadLetter.of(RawRecord(topic, "D", 2, 8, 5000, b"k", value, headers)))


@pytest.mark.parametrize(("added", "offset"), [(CONNECT, 99), (SPRING, 100_003)])
def test_a_letter_of_another_writer_has_the_key_and_run_that_its_event_would_have_here(added, offset):
    with_id, without = adopted([*OWN, *added]), adopted(added)

    key = event_key("/shop", "e1")
    assert (with_id.key, with_id.run_id) == (key, run_id("merge", 0, [key]))
    assert with_id.id == dead_letter_id(with_id.run_id, 0)
    assert without.key == position_key("T1", 3, offset)
    assert (without.topic_id, without.group, without.life) == ("T1", "merge", 0)


def test_a_pipeline_that_declares_its_key_fields_gets_their_key():
    declaration = Declaration("merge", "", "now", (), (), once=("n",))
    codec = type("Codec", (), {"decode": lambda *_: {"n": 7}})()

    letter = adopted([*OWN, *CONNECT], declared=DeclaredKeys(lambda: (declaration, codec)))

    assert letter.key == fields_key([7])


def test_a_declared_key_of_what_cannot_be_read_is_the_position_as_the_service_takes_it():
    def refuse(*_):
        raise Undecodable("decode.corrupt", "no")

    declaration = Declaration("merge", "", "now", (), (), once=("n",))
    codec = type("Codec", (), {"decode": refuse})()

    letter = adopted([*OWN, *CONNECT], declared=DeclaredKeys(lambda: (declaration, codec)))

    assert letter.key == position_key("T1", 3, 99)


def test_without_key_fields_or_declaration_the_declaration_says_nothing():
    plain = Declaration("merge", "", "now", (), ())
    event = RawRecord("in.v1", "T1", 0, 0)

    assert DeclaredKeys(lambda: None)(event) is None
    assert DeclaredKeys(lambda: (plain, None))(event) is None


def test_a_letter_that_names_a_topic_and_no_offset_is_known_by_where_it_stands():
    letter = adopted([("x-original-topic", b"in.v1")])

    assert letter.key == position_key("D", 2, 8)
    assert letter.event().topic == "in.v1"


@pytest.mark.parametrize("headers", [[], [("x-original-topic", b"gone.v1")]])
def test_a_letter_whose_topic_is_not_known_stays_without_a_run(headers):
    assert adopted(headers).run_id == ""


def test_a_letter_of_ours_is_left_as_it_is():
    where = LetterContext("dlq.merge", 3, "merge", "1.2", "run-1", 2, b"key")
    made = letter_of(RawRecord("in.v1", "T1", 5, 42, 1000, b"k", b"v", OWN), Failure("E", "m", "run"), where)
    letter = DeadLetter.of(RawRecord("dlq.merge", "D", 0, 0, 5, made.key, made.value, made.headers))

    assert Adoption("merge", lambda _: {}, lambda _: None)(letter) is letter


def test_a_letter_is_read_back_from_what_was_exported():
    raw = RawRecord("dlq.merge", "D", 2, 8, 5000, None, b"\x00\xff", [("a", b"\xfe"), ("a", None), ("b", b"")])

    assert imported(exported(raw)) == raw


def test_causes_are_counted_with_their_first_and_last_and_versions():
    one = replace(adopted(CONNECT), pipeline_version="1.0")
    later = replace(one, raw=replace(one.raw, timestamp=9000), pipeline_version="1.1", message="later")
    other = replace(adopted(SPRING), pipeline_version="")

    first, second = count([(later, "open"), (one, "settled"), (other, None)])

    assert (first.letters, first.first, first.last, first.versions) == (2, 5000, 9000, {"1.0", "1.1"})
    assert (first.example.message, dict(first.states)) == ("later", {"open": 1, "settled": 1})
    assert (second.letters, dict(second.states)) == (1, {})


def test_a_letter_whose_state_nobody_knows_has_none():
    letter = adopted(CONNECT)

    assert list(with_states([letter], None)) == [(letter, None)]
    assert list(with_states([letter], {letter.id: "open"})) == [(letter, "open")]
