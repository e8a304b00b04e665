"""How far a replay reaches: whether those who listen take its outputs as news.

What a replay emits carries the header `ce_restatement`: `<scope>:<pipeline>/<epoch>`. `none`: nobody does it again;
`direct`: those who listen do, and what they emit says `none`; `all`: so does everybody after them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

NONE, DIRECT, ALL = "none", "direct", "all"
SCOPES = (NONE, DIRECT, ALL)
NOT_ASKED = "cascade.none"
"""The reason for which an event is filtered whose replay was not to reach any further."""


def restatement(scope: str, pipeline: str, epoch: int) -> str:
    """The header of what a replay emits."""
    return f"{scope}:{pipeline}/{epoch}"


def refused(told: str) -> str:
    """Why an event with this header is not done again, or nothing.

    >>> refused("none:merge/3"), refused("all:merge/3"), refused("")
    ('cascade.none', '', '')
    """
    return NOT_ASKED if _scope(told) == NONE else ""


def handed_on(causes: Iterable[str]) -> str:
    """The header of what comes of events with these headers: the one that reaches furthest counts.

    >>> handed_on(["", "direct:merge/3"]), handed_on(["all:merge/3", "direct:land/1"]), handed_on([""])
    ('none:merge/3', 'all:merge/3', '')
    """
    furthest = max(causes, key=lambda told: SCOPES.index(_scope(told)) if told else -1, default="")
    if _scope(furthest) != DIRECT:
        return furthest
    return f"{NONE}:{furthest.partition(':')[2]}"


def restated(key: bytes, told: str) -> bytes:
    """The idempotency key of an event that is told again on purpose: another one for each replay, whatever it says."""
    about = told.partition(":")[2]
    return blake2b(b"restated\x00" + about.encode() + b"\x00" + key, digest_size=16).digest() if about else key


def _scope(told: str) -> str:
    scope = told.partition(":")[0]
    return scope if scope in SCOPES else ALL
