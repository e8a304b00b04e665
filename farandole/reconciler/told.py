"""Where the ledger has told something of an idempotency key, alone or as one of a joined set."""

from __future__ import annotations

from collections.abc import Callable, Collection

from farandole.declaration import Declaration
from farandole.ids import run_id
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition
from farandole.reconciler.missed import Place


def places_told(
    read: Callable[[str], TopicReader], codec: Codec, declaration: Declaration, keys: Collection[bytes]
) -> dict[bytes, set[Place]]:
    """Of these keys, where the events stand whose runs the ledger names, in the live lane. Raises Unreachable.

    Reads the pipeline's partition of the ledger from its beginning, so it is asked only where something is missing.
    The runs of a joined set have ids that one key does not tell: there every line is decoded.
    """
    found: dict[bytes, set[Place]] = {}
    wanted, name = frozenset(keys), declaration.name.encode()
    runs = None if declaration.join else {run_id(declaration.name, 0, [key]).encode() for key in wanted}
    with read(LEDGER_TOPIC) as reader:
        ends = reader.undecided_ends()
        at = ledger_partition(declaration.name, len(ends))
        for batch in reader.read({at: reader.starts()[at]}, until={at: ends[at]}):
            for raw in batch:
                if raw.value is None or (raw.key not in runs if runs is not None else name not in raw.value):
                    continue
                entry = codec.decode(LEDGER_TOPIC, raw.value, raw.headers) or {}
                if (entry["kind"], entry["pipeline"], entry["epoch"]) != ("run", declaration.name, 0):
                    continue
                for key, cause in zip(entry["keys"], entry["triggers"], strict=False):
                    if key in wanted:
                        place = (cause["topic_id"], cause["partition"], cause["offset"])
                        found.setdefault(key, set()).add(place)
    return found
