"""The laws of the product as assertions: what must hold on every stage, whatever was told to it.

Each gives what breaks it, in words; an empty list means that it holds.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farandole.testing.stage import Stage


def conservation(stage: Stage) -> list[str]:
    """Every record that was told is done, filtered, waiting, dead, a duplicate or under way: no other state is."""
    ran = {(cause["topic"], cause["offset"]) for e in stage.ledger if e.kind == "run" for cause in e.triggers}
    passed: Counter[tuple[str, int]] = Counter()
    for entry in stage.ledger:
        if entry.span is not None:
            for offsets in (entry.span["duplicates"], *entry.span["filtered"].values()):
                passed.update((entry.span["topic"], offset) for offset in offsets)
    twice = [f"{topic}@{offset} has two outcomes" for (topic, offset), n in passed.items() if n > 1]
    twice += [f"{topic}@{offset} was run and was not" for topic, offset in sorted(ran & passed.keys())]
    missing = stage.told - len(ran | passed.keys()) - stage.open_records
    return twice + ([f"{missing} of {stage.told} records have no outcome"] if missing else [])


def one_effect(stage: Stage) -> list[str]:
    """No id of an emitted event comes twice, and no key is settled by two runs."""
    ids = Counter(dict(record.headers)["ce_id"] for record in stage.records)
    keys = Counter(key for run in stage.runs for key in run.keys)
    told = [f"event {(identity or b'').decode()} was emitted {n} times" for identity, n in ids.items() if n > 1]
    return told + [f"key {key.hex()} was settled by {n} runs" for key, n in keys.items() if n > 1]
