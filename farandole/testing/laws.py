"""The laws of the product as assertions: what must hold on every stage, whatever was told to it.

Each gives what breaks it, in words; an empty list means that it holds.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farandole.testing.stage import Stage


def conservation(stage: Stage) -> list[str]:
    """Every record that was told is done, filtered, waiting, dead, a duplicate or under way: no other state is.

    A record that was read again after a kill may be told a duplicate of itself; one that was run was not filtered.
    """
    ran = {(cause["topic"], cause["offset"]) for e in stage.ledger if e.kind == "run" for cause in e.triggers}
    filtered: set[tuple[str, int]] = set()
    again: set[tuple[str, int]] = set()
    for span in (e.span for e in stage.ledger if e.span is not None):
        again |= {(span["topic"], offset) for offset in span["duplicates"]}
        filtered |= {(span["topic"], offset) for offsets in span["filtered"].values() for offset in offsets}
    told = [f"{topic}@{offset} was run and filtered" for topic, offset in sorted(ran & filtered)]
    inputs = stage.declaration.topics
    missing = stage.told - len({at for at in ran | filtered | again | stage.open_records if at[0] in inputs})
    return told + ([f"{missing} of {stage.told} records have no outcome"] if missing else [])


def one_effect(stage: Stage) -> list[str]:
    """No id of an emitted event comes twice, and no key is settled by two runs."""
    ids = Counter(dict(record.headers)["ce_id"] for record in stage.records)
    keys = Counter(key for run in stage.runs for key in run.keys)
    told = [f"event {(identity or b'').decode()} was emitted {n} times" for identity, n in ids.items() if n > 1]
    return told + [f"key {key.hex()} was settled by {n} runs" for key, n in keys.items() if n > 1]
