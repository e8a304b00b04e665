"""Whether every copy of a key meets one owner. Where it does not, a run claims its key in SQL before it starts."""

from __future__ import annotations

from typing import NamedTuple

from farandole.declaration import Declaration
from farandole.fill import event_class


class Locality(NamedTuple):
    """Whether the keys of a pipeline are local, and why."""

    local: bool
    why: str


def locality(declaration: Declaration) -> Locality:
    """All copies of a key stand on one partition if the key determines the record key, on one topic.

    >>> locality(Declaration("count", "", "now", (), ())).local
    True
    """
    if declaration.join is not None:
        return Locality(local=False, why="the signals of a join come from several partitions")
    if declaration.once and len(declaration.topics) > 1:
        return Locality(local=False, why=f"`{', '.join(declaration.once)}` may be the same on several topics")
    for event_type in declaration.topics:
        key = getattr(event_class(event_type), "__event_key__", ())
        if not key:
            return Locality(local=False, why=f"records of {event_type} have no key, so copies stand on any partition")
        apart = [name for name in key if name not in declaration.once]
        if declaration.once and apart:
            said = f"`once` does not hold `{', '.join(apart)}` of the record key"
            return Locality(local=False, why=f"{said}, so copies stand on any partition of {event_type}")
    if declaration.once:
        return Locality(local=True, why="`once` determines the record key")
    return Locality(local=True, why="copies of an event carry its id and its record key")
