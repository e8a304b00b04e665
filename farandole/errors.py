"""Every error: what happened, where, and what to do about it.

An error's text is `message`, its `place` (file:line, topic or setting) and its `hint` (the next thing to
do) stand apart so that the command line can set them out and ``-o json`` can name them.
"""

from __future__ import annotations

FINE, ERROR, DIFFERENCES, ATTENTION, USAGE = 0, 1, 2, 3, 64
"""Exit codes of the command line."""


class FarandoleError(Exception):
    """Something went wrong that a person can mend."""

    exit_code = ERROR

    def __init__(self, message: str, *, place: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message, self.place, self.hint = message, place, hint

    def __str__(self) -> str:
        lines = [f"{self.place}  {self.message}" if self.place else self.message]
        if self.hint:
            lines.append(f"  hint  {self.hint}")
        return "\n".join(lines)


class DeclarationError(FarandoleError):
    """A pipeline's declaration, a manifest or a topology file is wrong; known before anything runs."""


class SettingsError(FarandoleError):
    """A setting is missing or cannot be read."""

    exit_code = USAGE


class StackError(FarandoleError):
    """The embedded stack could not be started, found or stopped."""


class Unreachable(FarandoleError):
    """A server that is needed does not answer: broker, registry or database. Wait and try again."""


class BrokerUnreachable(Unreachable):
    """The Kafka brokers do not answer."""


class Undecided(BrokerUnreachable):
    """A transaction of somebody else is still open, and what comes after it cannot be read. Wait and try again."""


class RegistryUnreachable(Unreachable):
    """The schema registry does not answer, or answers 5xx, 401, 403 or 429. Nothing is quarantined for it."""


class DatabaseUnreachable(Unreachable):
    """The database does not answer. No dedup, no work: the partition pauses."""


class TablesLost(DatabaseUnreachable):
    """Tables of our own are gone from the database: they are made anew, and filled from the ledger."""


class Undecodable(FarandoleError):
    """A record that no retry will make readable. `reason` is the closed word that the dead letter carries."""

    def __init__(self, reason: str, message: str, *, place: str = "") -> None:
        super().__init__(message, place=place, hint="the record stands whole in the dead-letter topic")
        self.reason = reason


class Fenced(FarandoleError):
    """Another instance owns this partition now; whatever was under way here is dropped."""


class LedgerIncomplete(FarandoleError):
    """Records below the committed offset have no outcome in the ledger: stop and say so."""


class UndeclaredOutput(FarandoleError):
    """A step returned an event that its pipeline does not declare. A programming error: never retried."""


class Unfillable(FarandoleError):
    """A step asks for a parameter that nothing gives. A programming error: never retried."""


class Unreadable(FarandoleError):
    """A step's result was kept by code whose types are not those of today: no retry will make it readable."""

    reason = "checkpoint.unreadable"


class GivenUp(FarandoleError):
    """A call whose result nobody wants any more: its partition is lost, or a person ended its run."""


class Away(Exception):
    """Not an error: a run leaves its slot, because its next step is detached. `pause` is when to ask again, seconds."""

    def __init__(self, step: str, pause: float) -> None:
        super().__init__(step)
        self.step, self.pause = step, pause


class StepDied(FarandoleError):
    """The process of an isolated step ended by itself. A failure of the step, and retried as one."""


class Unpicklable(FarandoleError):
    """What an isolated step takes or gives cannot travel between processes."""
