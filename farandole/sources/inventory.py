"""What a source should have told: its declared files as they stand, for whoever compares them with the topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from farandole.sources.files import Seen


@dataclass(frozen=True, slots=True)
class Listing:
    """Events in the order in which they are told, each with its id; `wrong` says what could not be listed."""

    events: Sequence[tuple[str, Any]]
    wrong: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """Of one source: the class of its events, and how to list what is new or changed since what was `seen`.

    A folder under services/ offers it as ``inventory`` in its inventory.py. `listed` notes in `seen` what it lists,
    and may raise FileNotFoundError where what it lists is not there.
    """

    event: type[Any]
    listed: Callable[[Seen], Listing]
