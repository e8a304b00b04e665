"""What commands do to a running service: it waits while its pipeline is paused, and hears what is wanted of its runs.

Pause means wait: nothing is read, no run and no further attempt begins, what is under way ends and is committed, and
no offset moves past anything else. Resume goes on exactly there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from farandole.clock import iso_of
from farandole.control import OF_PIPELINES, ORDER, PAUSE, Command
from farandole.errors import ATTENTION, FarandoleError
from farandole.event import Record
from farandole.lanes import Lanes
from farandole.outcome import Books
from farandole.owned import RUNNING, Ended, Owned, stopped

KEPT = 10_000
"""Commands for runs that are kept for runs that come later."""


class Heard(Protocol):
    """Who hears the commands; on the real topic :class:`farandole.kafka.listener.Listener`."""

    def take(self) -> list[Command] | None:
        """What came since the last look; None until all that stood there at the start was read."""
        ...


class Paused(FarandoleError):
    """The pipeline is paused, so it cannot be drained."""

    exit_code = ATTENTION


class Steering:
    """Looks once a turn, on the polling thread. A service begins held: nobody knows yet what is wanted of it."""

    def __init__(
        self,
        heard: Heard,
        lanes: Lanes,
        books: Books,
        say: Callable[..., None],
        resumed: Callable[[int], None] = lambda _at: None,
    ) -> None:
        self._heard, self._lanes, self._books, self._say, self._resumed = heard, lanes, books, say, resumed
        self.paused: Command | None = None
        self.held = True
        self.tells = True  # whether pauses and resumes are written to the ledger from here
        self.orders: list[Command] = []
        """Heard, and not yet taken by whoever carries them out."""
        self._facts: list[Command] = []
        self._of_runs: dict[str, Command] = {}
        self._news: list[Command] = []
        lanes.hold()

    def look(self, partitions: Collection[Owned]) -> None:
        """Hear what is wanted, and do it. Raises what the listener ended with."""
        commands = self._heard.take()
        if commands is None:
            return
        for command in commands:
            if command.kind in OF_PIPELINES:
                self._steer(command)
            elif command.kind == ORDER:
                self.orders.append(command)
            else:
                self._keep(command)
        self.held = self.paused is not None
        if self.held:
            self._lanes.hold()
        else:
            self._lanes.go()
        owned = next((o for o in partitions if o.phase == RUNNING), None) if self._facts else None
        if owned is not None:
            owned.ended.append(Ended([], [self._fact(command) for command in self._facts]))
            self._facts = []

    def take(self) -> list[Command]:
        """Commands for runs, heard since the last call: to cancel, to release, to reschedule a parked run."""
        news, self._news = self._news, []
        return news

    @property
    def commanded(self) -> bool:
        """Whether anything is wanted of any run."""
        return bool(self._of_runs)

    def standing(self, run_id: str, since: int) -> Command | None:
        """The newest command for a run, if it was given after `since` (milliseconds, by the broker's clock)."""
        command = self._of_runs.get(run_id)
        return command if command is not None and command.at > since else None

    def left_over(self, partitions: Collection[Owned]) -> FarandoleError | None:
        """What a service that was to be drained has not done: nothing, or the error that it ends with."""
        if self.paused is not None:
            return Paused(
                f"{self._books.declaration.name} is paused: {_why(self.paused)}",
                hint=f"what it has not read waits; to go on: farandole resume {self._books.declaration.name}",
            )
        return stopped(list(partitions))

    def _steer(self, command: Command) -> None:
        was, self.paused = self.paused, command if command.kind == PAUSE else None
        if self.paused is None:
            self._resumed(command.at)
        if self.tells:
            self._facts.append(command)  # every instance writes it, under one id
        if was is not None or self.paused is not None:
            self._say(_name(command), actor=command.actor, reason=command.reason, at=iso_of(command.at))

    def _keep(self, command: Command) -> None:
        self._news = [*self._news[-KEPT:], command]
        self._of_runs.pop(command.run_id, None)
        self._of_runs[command.run_id] = command
        if len(self._of_runs) > KEPT:
            del self._of_runs[next(iter(self._of_runs))]

    def _fact(self, command: Command) -> Record:
        detail = {"actor": command.actor, "reason": command.reason, "at": iso_of(command.at)}
        return self._books.told(_name(command), str(command.at), detail, at=command.at)


def _name(command: Command) -> str:
    return "pipeline.paused" if command.kind == PAUSE else "pipeline.resumed"


def _why(command: Command) -> str:
    return f"by {command.actor} at {iso_of(command.at)}" + (f" ({command.reason})" if command.reason else "")
