"""What a person wants of a run: that it makes its next attempt now, later, or never."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from farandole.clock import Clock
from farandole.control import CANCEL, OF_RUNS, RELEASE, Command
from farandole.deadletter import Failure, fingerprint
from farandole.intake import Intake
from farandole.parking import Parked
from farandole.run import Run, RunState
from farandole.steering import Steering


@dataclass(slots=True)
class Commanded:
    """Obeys the commands for runs that wait or are under way here; those for other runs are somebody else's."""

    intake: Intake
    clock: Clock
    say: Callable[..., None]
    steering: Steering
    _left: list[Command] = field(default_factory=list)

    def obey(self) -> None:
        """Each in the next transaction of its partition, with who wanted it and why.

        What was wanted of a run before it came here stands on the topic still. Raises DatabaseUnreachable; what is
        left is obeyed the next time.
        """
        self._left += self.steering.take()
        parking = self.intake.parking
        for item in parking.arrived:
            come = item.readings[0].come
            if come is not None and (stands := self.steering.standing(item.run_id, come.appended)) is not None:
                self._left.append(stands)
        parking.arrived.clear()
        while self._left:
            command = self._left[0]
            waits = parking.find(command.run_id) if command.kind in OF_RUNS else None
            if waits is not None:
                self._say(command)
                (self._cancel if command.kind == CANCEL else self._move)(waits, command)
            elif command.kind == CANCEL:
                here = (run for run in self.intake.in_flight.values() if run.id == command.run_id and not run.over)
                if (run := next(here, None)) is not None:
                    self._end(run, command)
            self._left.pop(0)

    def admitted(self, runs: list[Run]) -> list[Run]:
        """Runs that begin; one that was cancelled before, as it ended its process again and again, ends at once."""
        for run in runs if self.steering.commanded else ():
            stands = self.steering.standing(run.id, -1) if run.life == 0 else None
            if stands is not None and stands.kind == CANCEL:
                self._end(run, stands)
        return runs

    def _say(self, command: Command) -> None:
        self.say(f"run.{command.kind}", run=command.run_id, actor=command.actor, reason=command.reason)

    def _end(self, run: Run, command: Command) -> None:
        """It ends by itself, before its next step."""
        self._say(command)
        run.told = {"actor": command.actor, "reason": command.reason}
        run.end(cancelled(self.intake.books.declaration.name, command, run.attempt))

    def _move(self, item: Parked, command: Command) -> None:
        run = self.intake.parked(item)
        run.ended_at = self.clock.millis()
        due = run.ended_at if command.kind == RELEASE or command.due is None else command.due
        run.state, run.pause = RunState.PARKED, max(0.0, (due - run.ended_at) / 1000)
        run.told = {"actor": command.actor, "reason": command.reason}
        self.intake.holding.leave([run])

    def _cancel(self, item: Parked, command: Command) -> None:
        """Dead, with a letter that can be redriven: nothing is thrown away."""
        run = self.intake.parked(item)
        run.ended_at, run.state = self.clock.millis(), RunState.DEAD
        run.told = {"actor": command.actor, "reason": command.reason}
        run.failure = cancelled(self.intake.books.declaration.name, command, run.attempt - 1)
        run.holds = self.intake.books.declaration.on_dead == "hold-key"
        self.intake.holding.leave([run])


def cancelled(pipeline: str, command: Command, attempts: int) -> Failure:
    """The failure of a run that a person ended."""
    name, message = "farandole.Cancelled", f"cancelled by {command.actor}: {command.reason or 'no reason given'}"
    told = fingerprint(pipeline, "", name, "cancelled", "")
    return Failure(name, message, "run", fingerprint=told, attempts=attempts, reason="cancelled")
