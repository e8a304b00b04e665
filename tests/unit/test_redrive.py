"""A redrive: its plan, its steps, when it stops by itself, and how it goes on after it was interrupted."""

from __future__ import annotations

import pytest

from farandole.clock import ManualClock
from farandole.control import Command
from farandole.deadletter import DeadLetter, Failure, LetterContext, letter_of
from farandole.delivery import RESOLVE
from farandole.errors import FarandoleError
from farandole.event import RawRecord
from farandole.redrive import (
    FINISHED,
    IDS_AT_ONCE,
    RUNNING,
    STOPPED,
    WAITING,
    Order,
    RedrivePlan,
    carry_out,
    plan_of,
    plan_redrive,
    sent_by,
)
from farandole.selection import Case, Found, Selection, Standing

ORDER = Order(1000.0, 0.05, "ada@desk", 1_000)


def a_plan(count, **more):
    cases = tuple(Case(f"run-{n}", 0, ((n % 3, n),)) for n in range(count))
    return RedrivePlan("p1", "merge", "dlq.merge", Selection(), cases, 1000.0, 0.05, 1_000, "ada@desk", **more)


class Deck:
    """A pipeline that ends each run as it is told to, as soon as it is sent; `gone` cannot be sent."""

    def __init__(self, plan, *, ends=lambda n: "done", gone=()):
        self.clock = ManualClock()
        self.standing: dict[str, Standing] = {case.run_id: Standing(0, "dead") for case in plan.cases}
        self.sent: list[str] = []
        self.times: list[float] = []
        self.notes: list[Command] = []
        self.killed_after = 10**9
        self._ends, self._gone, self._news = ends, set(gone), set()

    def send(self, cases):
        missing = set()
        for case in cases:
            if len(self.sent) == self.killed_after:
                raise KeyboardInterrupt
            if case.run_id in self._gone:
                missing.add(case.run_id)
                continue
            self.sent.append(case.run_id)
            self.times.append(self.clock.monotonic())
            if (state := self._ends(int(case.run_id.removeprefix("run-")))) and self.standing[case.run_id].life == 0:
                self.standing[case.run_id] = Standing(1, state)
                self._news.add(case.run_id)
        return missing

    def listen(self, seconds):
        self.clock.advance(max(seconds, 0.0))
        news, self._news = self._news, set()
        return news

    def note(self, progress):
        self.notes.append(progress.note("merge", "ada@desk", 0))


def walk(plan, deck, wait=60.0):
    return list(carry_out(plan, deck, deck.clock, wait))[-1]


def test_a_redrive_goes_in_steps_of_one_ten_a_hundred_and_the_rest():
    plan = a_plan(500)
    deck = Deck(plan)

    last = walk(plan, deck)

    assert [len(step) for step in plan.steps] == [1, 10, 100, 389]
    assert (last.state, last.settled, last.failed, last.sent) == (FINISHED, 500, 0, 500)
    assert deck.sent == [case.run_id for case in plan.cases]


def test_each_step_waits_until_the_runs_of_the_one_before_have_ended():
    plan = a_plan(500)
    deck = Deck(plan, ends=lambda n: "" if n == 5 else "done")

    last = walk(plan, deck)

    assert len(deck.sent) == 11
    assert (last.state, last.step, last.settled) == (WAITING, 2, 10)
    assert "1 runs have not ended" in last.reason
    assert "is merge running?" in last.reason


def test_a_parked_run_is_waited_for_and_told_of():
    plan = a_plan(11)
    deck = Deck(plan, ends=lambda n: "parked" if n == 5 else "done")

    last = walk(plan, deck)

    assert (last.state, last.parked) == (WAITING, 1)
    assert "(1 are parked)" in last.reason


def test_the_wait_begins_again_with_every_run_that_ends():
    plan = a_plan(11)
    deck = Deck(plan, ends=lambda n: "done" if n == 0 else "")
    waiting = iter(plan.cases[1:])
    listen = deck.listen

    def slow(seconds):
        listen(seconds)
        if len(deck.sent) == 11 and deck.clock.monotonic() > slow.at + 50:
            slow.at = deck.clock.monotonic()
            if (case := next(waiting, None)) is not None:
                deck.standing[case.run_id] = Standing(1, "done")
                return {case.run_id}
        return {"run-0"}

    slow.at = 0.0
    deck.listen = slow

    assert walk(plan, deck, wait=60.0).state == FINISHED
    assert deck.clock.monotonic() > 500


@pytest.mark.parametrize(
    ("fails", "sent", "step"),
    [
        (lambda n: n == 0, 1, 1),  # one of one
        (lambda n: n == 3, 11, 2),  # one of ten is more than 5 %
        (lambda n: 11 <= n < 17, 111, 3),  # six of a hundred
    ],
)
def test_it_stops_by_itself_where_too_many_of_a_step_fail_again(fails, sent, step):
    plan = a_plan(500)
    deck = Deck(plan, ends=lambda n: "dead" if fails(n) else "done")

    last = walk(plan, deck)

    assert (last.state, last.step, len(deck.sent)) == (STOPPED, step, sent)
    assert "failed again" in last.reason
    assert deck.notes[-1].detail["state"] == STOPPED
    assert deck.notes[-1].reason == last.reason


def test_five_of_a_hundred_may_fail():
    plan = a_plan(500)
    deck = Deck(plan, ends=lambda n: "dead" if 11 <= n < 16 else "done")

    last = walk(plan, deck)

    assert (last.state, last.settled, last.failed) == (FINISHED, 495, 5)


def test_a_large_step_stops_in_its_middle_as_soon_as_that_is_clear():
    plan = a_plan(20_000)
    deck = Deck(plan, ends=lambda n: "dead" if n > 111 and n % 2 else "done")

    last = walk(plan, deck)

    assert (last.state, last.step) == (STOPPED, 4)
    assert len(deck.sent) < 111 + 400


def test_a_run_in_doubt_counts_as_failed():
    plan = a_plan(1)

    assert walk(plan, Deck(plan, ends=lambda n: "uncertain")).state == STOPPED


def test_what_cannot_be_sent_is_counted_and_stops_nothing():
    plan = a_plan(11)
    deck = Deck(plan, gone={"run-0", "run-7"})

    last = walk(plan, deck)

    assert (last.state, last.settled, last.missing) == (FINISHED, 9, 2)


def test_it_goes_no_faster_than_the_rate():
    plan = a_plan(500)
    deck = Deck(plan)

    walk(plan, deck)

    assert deck.times[-1] >= 499 / 1000 - 0.2
    for at, moment in enumerate(deck.times):
        assert at / 1000 <= moment + 0.2


@pytest.mark.parametrize("killed_after", [0, 1, 5, 11, 60, 111, 300])
def test_begun_again_it_sends_what_has_not_arrived(killed_after):
    plan = a_plan(400)
    deck = Deck(plan)
    deck.killed_after = killed_after
    with pytest.raises(KeyboardInterrupt):
        walk(plan, deck)
    deck.killed_after = 10**9

    last = walk(plan, deck)

    assert (last.state, last.settled) == (FINISHED, 400)
    assert sorted(deck.sent) == sorted(case.run_id for case in plan.cases)


def test_begun_again_it_sends_again_what_was_sent_and_did_not_arrive():
    plan = a_plan(11)
    deaf = Deck(plan, ends=lambda n: "")
    walk(plan, deaf)
    deck = Deck(plan)

    assert walk(plan, deck).state == FINISHED
    assert len(deck.sent) == 11


def test_begun_again_it_does_not_send_what_waits_in_its_pipeline():
    plan = a_plan(11)
    first = Deck(plan, ends=lambda n: "parked" if n == 5 else "done")
    walk(plan, first)
    deck = Deck(plan)
    deck.standing = dict(first.standing)

    assert walk(plan, deck).state == WAITING
    assert deck.sent == []


def test_what_stopped_stops_again_at_once_and_sends_nothing():
    plan = a_plan(500)
    deck = Deck(plan, ends=lambda n: "dead" if n == 3 else "done")
    walk(plan, deck)
    sent = list(deck.sent)

    assert walk(plan, deck).state == STOPPED
    assert deck.sent == sent


def test_progress_is_kept_at_every_step_and_not_with_every_run():
    plan = a_plan(5000)
    deck = Deck(plan)

    walk(plan, deck)

    assert {note.detail["step"] for note in deck.notes} == {"1", "2", "3", "4"}
    assert deck.notes[-1].detail["state"] == FINISHED
    assert len(deck.notes) < 30


def test_resolving_runs_nothing_and_needs_no_careful_steps():
    assert [len(step) for step in a_plan(500, kind=RESOLVE).steps] == [500]


# ---- plans


def letters(count, **more):
    found = Found(Selection(**more))
    for n in range(count):
        raw = RawRecord("in.v1", "T", 0, n, 500, b"k", b"v", [])
        where = LetterContext("dlq.merge", 4, "merge", "1", f"run-{n}", 0, b"\x01")
        made = letter_of(raw, Failure("ValueError", "no", "run", fingerprint="f1"), where)
        found.add([DeadLetter.of(RawRecord("dlq.merge", "D", n % 3, n, 1000 + n, made.key, made.value, made.headers))])
    return found


def planned(found, standing=None, sent=None, order=ORDER):
    return plan_redrive(("merge", "dlq.merge"), found, found.cases(), standing or {}, sent or {}, order)


def test_a_plan_leaves_out_what_needs_no_redrive_and_says_why():
    standing = {
        "run-0": Standing(1, "done"),
        "run-1": Standing(0, "resolved"),
        "run-2": Standing(1, "dead"),
        "run-3": Standing(1, "parked"),
        "run-4": Standing(0, "dead"),
    }

    plan = planned(letters(7), standing, {(2, 5): "p0"})

    assert [case.run_id for case in plan.cases] == ["run-4", "run-6"]
    assert plan.left_out == {"settled": 1, "resolved": 1, "died again": 1, "under way": 1, "sent by a plan p0": 1}
    assert plan.sources == ("in.v1",)


def test_a_plan_is_read_back_from_its_notes_with_its_letters_in_order():
    plan = planned(letters(100, group="f1"), order=ORDER._replace(reason="mended"))

    notes = {note.id: Command.of(note.record()) for note in plan.notes()}
    read, places = plan_of(notes, plan.id)

    assert places == [case.places[0] for case in plan.cases]
    assert (read.selection, read.reason, read.rate, read.limit) == (plan.selection, "mended", 1000.0, 0.05)
    assert read.notes()[-1].record() | {"detail": {}} == plan.note().record() | {"detail": {}}


def test_a_plan_of_many_letters_is_kept_in_parts_that_a_topic_takes():
    notes = a_plan(100_000).notes()

    assert [len(note.ids) for note in notes] == [IDS_AT_ONCE, IDS_AT_ONCE, 20_000, 0]
    assert max(sum(len(one) + 1 for one in note.ids) for note in notes) < 500_000
    assert notes[-1].id == "plan:p1"  # the letters stand before the plan that needs them


def test_the_id_of_a_plan_follows_from_what_it_does_and_when():
    one, same, later = planned(letters(3)), planned(letters(3)), planned(letters(3), order=ORDER._replace(at=2_000))

    assert one.id == same.id != later.id
    assert len(one.id) == 8


def test_letters_that_a_plan_has_sent_are_known_until_it_is_finished():
    plan = a_plan(400)
    deck = Deck(plan, ends=lambda n: "done" if n < 11 else "")
    walk(plan, deck)
    notes = {note.id: note for note in [*plan.notes(), deck.notes[-1]]}

    assert sent_by(notes, "merge") == {case.places[0]: "p1" for case in plan.cases[:111]}
    assert sent_by(notes, "other") == {}
    done = Deck(plan)
    walk(plan, done)
    assert sent_by(notes | {done.notes[-1].id: done.notes[-1]}, "merge") == {}


def test_a_plan_that_is_not_there_is_told_with_the_remedy():
    with pytest.raises(FarandoleError, match="farandole dlq plans"):
        plan_of({}, "nothing")


def test_the_first_word_of_progress_says_that_it_runs():
    plan = a_plan(1)
    deck = Deck(plan)

    first = next(iter(carry_out(plan, deck, deck.clock, 1.0)))

    assert (first.state, first.sent, deck.sent) == (RUNNING, 0, [])
