"""The sending side of a redrive: letters become deliveries of their pipeline's retry topic, and of no other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from farandole.clock import Clock
from farandole.deadletter import DeadLetter, size_of
from farandole.delivery import REDRIVE, retry_record
from farandole.errors import FarandoleError, Unreachable
from farandole.event import Record
from farandole.ids import digest
from farandole.kafka.admin import Admin
from farandole.kafka.control import Control
from farandole.kafka.emitter import Emitter
from farandole.letters import Ledger, Letters, Reading, pointed
from farandole.redrive import Progress, RedrivePlan
from farandole.selection import Case, Place, Standing, cases_of

LARGEST = 1_000_000
"""Bytes that a record of the retry topic may have."""
_READ_AT_ONCE = 5000


class Sender:
    """Sends letters to the retry topic of one pipeline, in the name of an actor and under the id of a command."""

    def __init__(self, emitter: Emitter, admin: Admin, read: Reading, pipeline: str, command: tuple[str, str]) -> None:
        self._emitter, self._read, self._command = emitter, read, command
        self.topic = f"retry.{pipeline}"
        found = admin.partitions([self.topic])
        if self.topic not in found:
            raise FarandoleError(
                f"pipeline {pipeline} has no topic {self.topic} to send its letters to",
                place="kafka",
                hint="`farandole topology apply` creates it",
            )
        self._partitions = found[self.topic]

    def records(self, letters: Sequence[DeadLetter], kind: str, reason: str) -> list[Record]:
        """The records that bring these letters back. Raises FarandoleError for an event that is gone or too large."""
        return [self.record(letter, kind, reason) for letter in letters]

    def record(self, letter: DeadLetter, kind: str = REDRIVE, reason: str = "", edited: bytes | None = None) -> Record:
        """The record that brings one letter back, with another value where it was `edited`."""
        stood = pointed(self._read, letter) if letter.pointer and kind == REDRIVE else None
        event, was = letter.event(stood), ""
        if edited is not None:
            event, was = replace(event, value=edited), digest(event.value).hex()
        delivery = letter.delivery(kind, *self._command, reason=reason, edited_from=was)
        record = retry_record(self.topic, self._partitions, event, delivery)
        if size_of(record) > LARGEST:
            raise FarandoleError(
                f"the event is too large for {self.topic}: {size_of(record)} bytes with what is added to it",
                place=f"{letter.topic}[{letter.partition}]@{letter.offset}",
                hint="mend it at its source, and settle the letter: farandole dlq resolve",
            )
        return record

    def send(self, records: Sequence[Record]) -> None:
        """Send them, and wait until they are acknowledged."""
        self._emitter.send(records)


class KafkaDeck:
    """Where a plan meets Kafka. A letter that cannot be sent is told of, and stops nothing."""

    def __init__(
        self, plan: RedrivePlan, letters: Letters, ledger: Ledger, sender: Sender, control: Control, clock: Clock
    ) -> None:
        self._plan, self._letters, self._ledger, self._sender = plan, letters, ledger, sender
        self._control, self._clock = control, clock
        self.standing: Mapping[str, Standing] = ledger.standing
        self.trouble: dict[str, str] = {}
        """Why the letters of a run could not be sent, by run."""

    def send(self, cases: Sequence[Case]) -> set[str]:
        """Send the letters of these runs, all of a run in a row."""
        found = self._letters.at([place for case in cases for place in case.places])
        records: list[Record] = []
        missing = set()
        for case in cases:
            try:
                records += self._sender.records(_all(case.places, found), self._plan.kind, self._plan.reason)
            except Unreachable:
                raise
            except FarandoleError as error:
                missing.add(case.run_id)
                self.trouble[case.run_id] = f"{error.message} ({error.place})"
        self._sender.send(records)
        return missing

    def listen(self, seconds: float) -> Collection[str]:
        """Read the ledger for so long."""
        return self._ledger.listen(seconds)

    def note(self, progress: Progress) -> None:
        """Keep how far it went, on the control topic."""
        self._control.save(progress.note(self._plan.pipeline, self._plan.actor, self._clock.millis()))


def _all(places: Sequence[Place], found: Mapping[Place, DeadLetter]) -> list[DeadLetter]:
    if gone := [place for place in places if place not in found]:
        raise FarandoleError(
            f"the letter is gone: {gone[0][0]}:{gone[0][1]}",
            place="dlq",
            hint="retention has passed it; the event may still stand on its own topic",
        )
    return [found[place] for place in places]


def reopened(plan: RedrivePlan, places: Sequence[Place], letters: Letters) -> tuple[RedrivePlan, int]:
    """A plan with its cases again, without letters that are gone; and when the oldest of them was written."""
    found: dict[Place, DeadLetter] = {}
    for at in range(0, len(places), _READ_AT_ONCE):
        found.update(letters.at(places[at : at + _READ_AT_ONCE], whole=False))
    oldest = min((letter.raw.timestamp for letter in found.values()), default=0)
    return replace(plan, cases=tuple(cases_of(places, found))), oldest
