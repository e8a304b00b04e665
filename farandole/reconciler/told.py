"""Which keys the ledger has told something of, alone or as one of a joined set."""

from __future__ import annotations

from collections.abc import Callable, Collection

from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.ledger.entry import LEDGER_TOPIC, ledger_partition


def keys_told(
    read: Callable[[str], TopicReader], codec: Codec, pipeline: str, keys: Collection[bytes]
) -> frozenset[bytes]:
    """Those of these keys that an entry of a run of the live lane names. Raises Unreachable.

    Reads the pipeline's partition of the ledger from its beginning, so it is asked only where something is missing.
    """
    found, wanted, name = set[bytes](), frozenset(keys), pipeline.encode()
    with read(LEDGER_TOPIC) as reader:
        ends = reader.undecided_ends()
        at = ledger_partition(pipeline, len(ends))
        for batch in reader.read({at: reader.starts()[at]}, until={at: ends[at]}):
            for raw in batch:
                if raw.value is None or name not in raw.value:
                    continue
                entry = codec.decode(LEDGER_TOPIC, raw.value, raw.headers) or {}
                if (entry["kind"], entry["pipeline"], entry["epoch"]) == ("run", pipeline, 0):
                    found |= wanted.intersection(entry["keys"])
    return frozenset(found)
