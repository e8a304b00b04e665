"""Where a partition starts: what the committed offset, its mark and our own position say together.

An offset below our position *without* our mark is a person's request; with our mark it is a regression. A
jump forward is refused, and what retention ate is said aloud. Pure: the table of docs/internals.md, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from farandole.ledger.entry import ACCEPTED, GAP
from farandole.topics import SEED_MARK

_NAME = "farandole/1"
RECREATED, TRUNCATED = "topic.recreated", "data.truncated"


@dataclass(frozen=True, slots=True)
class Mark:
    """What our own commits carry as metadata: where the transaction started, under which fence, its number."""

    start: int
    fence: int
    number: int

    def __str__(self) -> str:
        return f"{_NAME} {self.start} {self.fence} {self.number}"


def mark_of(metadata: str) -> Mark | None:
    """The mark in a committed offset's metadata; None where somebody else wrote it."""
    parts = metadata.split()
    if len(parts) != 4 or parts[0] != _NAME or not all(p.isascii() and p.isdigit() for p in parts[1:]):  # noqa: PLR2004
        return None
    return Mark(int(parts[1]), int(parts[2]), int(parts[3]))


@dataclass(frozen=True, slots=True)
class Former:
    """The topic of this name that was there before it was created anew, and where we stood in it.

    `accepted` says that a person wants the new one to be gone on with, `by` who and why.
    """

    topic_id: str
    position: int | None
    accepted: bool = False
    by: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """Committed offset (None: none) with its metadata, our position (None: none), and the log's range.

    `added` is set for a partition that the topic did not have when the pipeline first saw it.
    """

    committed: int | None
    metadata: str
    position: int | None
    low: int
    high: int
    added: bool = False
    former: Former | None = None
    cut: int | None = None  # where the log ended when it was found too short, and nobody has accepted that


@dataclass(frozen=True, slots=True)
class Start:
    """Where to go on. `fact` is written to the ledger; `stop` means: not at all, until a person says so.

    `prove` is set where outcomes up to `offset` come from the ledger: each record of [position, offset) must have one.
    """

    offset: int
    fact: str = ""
    detail: dict[str, str] = field(default_factory=dict)
    stop: bool = False
    prove: bool = False
    replay: int | None = None  # from this offset to `offset` it is to be processed again, in an epoch of its own


def where_to_start(found: Found, first: int, on_rewind: str) -> Start:
    """The decision. `first` is where the declaration's `since` points, for a pipeline that never ran."""
    committed, position = found.committed, found.position
    if position is None and found.former is not None:
        start = _anew(found, found.former)
    elif position is None and found.added and (committed is None or found.metadata == SEED_MARK):
        start = Start(0)  # nothing of it was ever left out on purpose
    elif position is None:
        start = Start(first if committed is None else committed)
    elif committed is None or found.metadata == SEED_MARK:
        start = Start(position, "offset.expired", _says(found))
    elif committed == position:
        start = Start(position)
    elif committed > position:
        start = _ahead(found, committed, position)
    else:
        start = _behind(found, position, on_rewind)
    return start if start.stop else _within_the_log(found, start)


def _anew(found: Found, former: Former) -> Start:
    """Another topic under the name of an old one: whatever was committed was committed for that."""
    told = {**_says(found), "former": former.topic_id, "position": str(former.position), "at": str(former.position)}
    if not former.accepted:
        return Start(0, RECREATED, told, stop=True)
    return Start(0, ACCEPTED, {**told, **former.by})


def _ahead(found: Found, committed: int, position: int) -> Start:
    mark = mark_of(found.metadata)
    if mark is not None and mark.start <= position:
        return Start(committed, prove=True)  # a crash between the Kafka commit and settle
    return Start(position, "offset.fast_forward.refused", _says(found))


def _behind(found: Found, position: int, on_rewind: str) -> Start:
    if mark_of(found.metadata) is not None:
        return Start(position, "offset.regressed", _says(found))
    if on_rewind == "ignore":
        return Start(position, "rewind.ignored", _says(found))
    return Start(position, "", _says(found), replay=max(found.committed or 0, found.low))


def _within_the_log(found: Found, start: Start) -> Start:
    if start.offset > found.high or found.cut is not None:
        # also where it has grown since: what came below the position would be passed over
        return Start(start.offset, TRUNCATED, {**_says(found), "offset": str(start.offset)}, stop=True)
    if start.offset < found.low:
        # its place is where it begins: found again before it was written, the same gap may have grown
        lost = {"from": str(start.offset), "to": str(found.low), "at": str(start.offset)}
        return Start(found.low, GAP, {**_says(found), **lost})
    return start


def accepted_cut(found: Found, by: dict[str, str]) -> Start:
    """A log that is too short is gone on with: from its first record, since nobody knows which of them are new."""
    return Start(found.low, ACCEPTED, {**_says(found), **by})


def _says(found: Found) -> dict[str, str]:
    told = {
        "committed": "none" if found.committed is None else str(found.committed),
        "metadata": found.metadata,
        "position": str(found.position),
        "log": f"{found.low}..{found.high}",
    }
    return {**told, "at": f"{told['committed']}-{told['position']}"}
