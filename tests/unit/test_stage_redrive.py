"""A redrive on a stage: it goes on at the step that failed, with newer code, however late, and once in all."""

from __future__ import annotations

from farandole import Pipeline, Retry, by, step, when
from farandole.clock import ManualClock
from farandole.delivery import REDRIVE, retry_record
from farandole.ids import digest
from farandole.testing import Stage, conservation, one_effect
from tests.unit.stage_events import event


@event("redrive.number.sent.v1", "key")
class NumberSent:
    n: int
    key: str


@event("redrive.other.sent.v1", "key")
class OtherSent:
    n: int
    key: str


@event("redrive.number.taken.v1", "key")
class NumberTaken:
    n: int
    key: str


class Code:
    """The code that runs: which version, and what it was asked."""

    def __init__(self) -> None:
        self.mended = False
        self.asked: list[str] = []


def numbered(ordinal: int):
    def one(number: NumberSent, code: Code) -> NumberTaken | None:
        code.asked.append(f"step{ordinal}")
        if ordinal == 6 and not code.mended:
            raise ValueError(f"{number.n} at six")
        return NumberTaken(number.n, number.key) if ordinal == 8 else None

    one.__name__ = one.__qualname__ = f"step{ordinal}"
    return step(retry=Retry(1))(one)


step1, step2, step3, step4, step5, step6, step7, step8 = map(numbered, range(1, 9))


class Eight(Pipeline):
    """Eight steps."""

    name = "redrive-eight"
    number = when(NumberSent)
    steps = [step1, step2, step3, step4, step5, step6, step7, step8]
    since = "beginning"


@step(retry=Retry(1))
def meet(number: NumberSent, other: OtherSent, code: Code) -> NumberTaken:
    code.asked.append("meet")
    if not code.mended:
        raise ValueError("no")
    return NumberTaken(number.n + other.n, number.key)


class Meeting(Pipeline):
    """Two signals."""

    name = "redrive-meeting"
    number = when(NumberSent)
    other = when(OtherSent)
    join = by("key", within="1h")
    steps = [meet]
    since = "beginning"


def test_after_twenty_days_it_goes_on_at_the_step_that_failed_with_the_code_that_runs_now():
    code, clock = Code(), ManualClock()
    stage = Stage(Eight, {Code: code}, clock)
    stage.tell(NumberSent(7, "k"))
    assert code.asked == [f"step{n}" for n in range(1, 7)]

    clock.advance("20d")
    code.mended = True
    stage.restart()
    stage.redrive()

    assert code.asked == [f"step{n}" for n in (1, 2, 3, 4, 5, 6, 6, 7, 8)]
    assert stage.sent == [NumberTaken(7, "k")]
    (run,) = stage.runs
    assert (run.state, run.life, [s["reused"] for s in run.steps]) == ("done", 1, [True] * 5 + [False] * 3)
    assert run.id == stage.dead[0].run_id
    assert conservation(stage) == []
    assert one_effect(stage) == []


def test_a_redrive_that_fails_again_is_a_letter_of_the_next_life_and_only_that_one_is_open():
    code = Code()
    stage = Stage(Eight, {Code: code})
    stage.tell(NumberSent(7, "k"))
    stage.redrive()
    stage.redrive()

    assert [letter.life for letter in stage.dead] == [0, 1, 2]
    assert len({letter.id for letter in stage.dead}) == 3
    assert {letter.event().value for letter in stage.dead} == {stage.dead[0].raw.value}
    code.mended = True
    stage.redrive()
    stage.redrive()
    assert stage.sent == [NumberTaken(7, "k")]
    assert stage.runs[0].life == 3


def test_a_joined_run_goes_back_whole():
    code = Code()
    stage = Stage(Meeting, {Code: code})
    stage.tell(NumberSent(1, "k"), OtherSent(2, "k"))
    code.mended = True

    stage.redrive()

    assert stage.sent == [NumberTaken(3, "k")]
    assert [run.state for run in stage.runs] == ["done"]


def edited(stage, letter, n):
    """The letter goes back with another number, as `farandole dlq edit` sends it."""
    event = letter.event()
    before, event.value = event.value, stage._codec.encode("redrive.number.sent.v1", {"n": n, "key": "k"})
    send(stage, event, letter.delivery(REDRIVE, "stage", "ada", edited_from=digest(before).hex()))


def send(stage, event, delivery):
    record = retry_record("retry.redrive-eight", 1, event, delivery)
    stage.tell_raw(record.topic, record.value, record.key, record.headers)


def test_a_letter_sent_again_as_it_was_after_it_was_edited_is_dropped():
    code = Code()
    stage = Stage(Eight, {Code: code})
    stage.tell(NumberSent(7, "k"))
    code.mended = True
    (letter,) = stage.dead

    edited(stage, letter, 8)
    send(stage, letter.event(), letter.delivery(REDRIVE, "stage", "bob"))

    assert stage.sent == [NumberTaken(8, "k")]
    assert len(stage.dead) == 1


def test_the_event_of_an_edited_letter_told_again_is_a_duplicate_and_no_conflict():
    code = Code()
    stage = Stage(Eight, {Code: code})
    stage.tell(NumberSent(7, "k"), id="e1")
    edited(stage, stage.dead[0], 8)  # fails again: its next letter has the edited value
    code.mended = True
    assert stage.dead[1].edited_from == digest(stage.dead[0].raw.value).hex()
    edited(stage, stage.dead[1], 9)

    stage.tell(NumberSent(7, "k"), id="e1")

    assert stage.sent == [NumberTaken(9, "k")]
    assert (len(stage.dead), stage.duplicates) == (2, 1)


def test_a_digest_that_is_none_does_no_harm():
    code = Code()
    stage = Stage(Eight, {Code: code})
    stage.tell(NumberSent(7, "k"))
    code.mended = True

    send(stage, stage.dead[0].event(), stage.dead[0].delivery(REDRIVE, "stage", "ada", edited_from="no hex"))

    assert stage.sent == [NumberTaken(7, "k")]
