"""Values for the store's suite, short to write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from hashlib import blake2b

from farandole.store import Claim, Lane, Member, OutboxRow, Outcome, Settlement

TOPIC, TOPIC_ID = "lake.file.landed.v1", "5c1f-topic"


def key(name) -> bytes:
    return blake2b(str(name).encode(), digest_size=16).digest()


def digest(name="same") -> bytes:
    return blake2b(str(name).encode(), digest_size=8).digest()


def own(store, partition=0, owner="a") -> Lane:
    """Take a partition over and give its lane."""
    fence = store.inbox.take_over(TOPIC, TOPIC_ID, partition, owner).fence
    return Lane(TOPIC, TOPIC_ID, partition, fence)


def claim(name, offset=0) -> Claim:
    return Claim(key(name), f"run-{name}", b"okey", digest(), offset)


def outcome(name, state="done", *, life=0, offset=0, detail="") -> Outcome:
    return Outcome(key(name), f"run-{name}", state, life, digest(), b"okey", offset, detail)


def settlement(
    lane, *outcomes, next_offset=1, ledger_offset=1, published=(), finished=(), closed=(), waits=()
) -> Settlement:
    return Settlement(lane, outcomes, next_offset, ledger_offset, published, finished, closed, waits)


def emitted(run, ordinal=0, value=b"bytes") -> OutboxRow:
    return OutboxRow(run, ordinal, "lake.table.staged.v1", b"k", [("ce_id", b"\x00\xff")], value)


def member(signal, partition=0, offset=0, *, join=b"2013-01-01", name=None, content="same") -> Member:
    return Member(
        key(name or signal),
        signal,
        join,
        TOPIC,
        TOPIC_ID,
        partition,
        offset,
        1357000000000,
        b"k",
        [("ce_id", b"1"), ("null", None)],
        b"value of " + signal.encode(),
        digest(content),
    )


def together(*calls: Callable[[], object]) -> list[object]:
    """Call all at once, each in its thread; their results, or what they raised, in order."""
    start, results = threading.Barrier(len(calls)), [None] * len(calls)

    def run(at: int) -> None:
        start.wait()
        try:
            results[at] = calls[at]()
        except Exception as error:
            results[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results
