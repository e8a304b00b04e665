"""The values that pass the store's door: what is asked of it and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from farandole.delivery import GIVEN_UP

FINAL = frozenset({"done", "caught", "filtered", "resolved", "expired"})
"""States that nothing leaves inside an epoch: they stand in the dedup table."""

SETTLED = FINAL | GIVEN_UP
"""States that a second delivery does not change: final ones, and those that wait for a person."""

RANK = {"claimed": 1, "waiting": 2, "parked": 3, "dead-hold": 4, "uncertain": 4, "dead": 4}
"""Order of the open states within one life; of two entries for a key the higher (life, rank, attempt) stands."""

STANDS = SETTLED | {"parked"}
"""Where a key stands so that another telling of it changes nothing."""

HOLDING = "holding"
"""The `detail` of a parked row whose Kafka transaction is not known to be committed."""

UNTOLD = "untold"
"""The `detail` of a member of a join whose `waiting` entry is not known to be committed."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A partition as one of its owners holds it. `fence` counts the changes of owner."""

    topic: str
    topic_id: str
    partition: int
    fence: int = 0
    epoch: int = 0

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class Lease:
    """A detached step of a run as one instance holds it. `fence` counts its holders; `owner` is this one."""

    run_id: str
    step: str
    fence: int
    owner: str

    def __str__(self) -> str:
        return f"{self.step} of run {self.run_id}"


@dataclass(frozen=True, slots=True)
class Taken:
    """A partition just taken over. A `previous_owner` means that its last owner did not end in order.

    `crashes` counts such owners in a row that hardly came any further; `suspect` is the offset
    of the one record that the last two of them had in hand, being careful. `cut` is where the log ended when it was
    found shorter than what was settled, and nobody has said yet what of it.
    """

    next_offset: int | None
    ledger_offset: int
    fence: int
    previous_owner: str | None
    crashes: int = 0
    suspect: int | None = None
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a key: how it ended, or who has it in hand.

    `state` is one of :data:`FINAL`, or claimed, parked, dead, uncertain or waiting. `fence` and the
    position are those of an open row; for a settled key they are 0, "", -1 and -1.
    """

    key: bytes
    state: str
    run_id: str
    life: int
    digest: bytes
    unpublished: bool = False  # decided in SQL, but its outbox rows have not been seen on their topics
    fence: int = 0
    topic_id: str = ""
    partition: int = -1
    offset: int = -1
    attempt: int = 0  # of a parked key: the next attempt, and when it is due (ms since 1970)
    due: int | None = None
    detail: str = ""

    @property
    def final(self) -> bool:
        """Whether the key is settled."""
        return self.state in FINAL


@dataclass(frozen=True, slots=True)
class Claim:
    """A key that a lane wants to run, and the offset of its event. A `life` of 0 or more comes from a retry record."""

    key: bytes
    run_id: str
    okey: bytes
    digest: bytes
    offset: int
    life: int = -1
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a key ended (a state of :data:`FINAL`), or where it now stands (parked, dead, uncertain).

    An `okey` holds later events of that record key back while the key is parked.
    """

    key: bytes
    run_id: str
    state: str
    life: int
    digest: bytes
    okey: bytes
    offset: int
    detail: str = ""
    attempt: int = 0
    due: int | None = None
    epoch: int = 0  # of the run, which a retry record may bring to a partition that is in another one


@dataclass(frozen=True, slots=True)
class Settlement:
    """What one lane writes down after its Kafka transaction: outcomes, and how far it came (None: as far as before)."""

    lane: Lane
    outcomes: Sequence[Outcome]
    next_offset: int | None
    ledger_offset: int
    published: Sequence[str] = ()  # run ids whose outbox rows go
    finished: Sequence[str] = ()  # run ids whose checkpoints go
    closed_joins: Sequence[bytes] = ()
    waits: Sequence[bytes] = ()  # keys of members whose `waiting` entry was in the transaction


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """The bytes of one record that SQL decided and Kafka has yet to publish."""

    run_id: str
    ordinal: int
    topic: str
    record_key: bytes | None
    headers: list[tuple[str, bytes]]
    value: bytes | None
