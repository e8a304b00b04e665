"""The rhythm as its topic keeps it: what came on which day, for whoever learns from it."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from farandole.completion import came
from farandole.kafka.codec import Codec
from farandole.kafka.reader import TopicReader
from farandole.rhythm import Came
from farandole.topics import RHYTHM


def of_topic(reader: TopicReader, codec: Codec, since: datetime, pipeline: str = "") -> dict[str, list[Came]]:
    """Per pipeline, when which data interval was done first. Raises FarandoleError where the topic is not there."""
    days: dict[bytes, tuple[str, list[Came]]] = {}
    for batch in reader.read(reader.starts(), until=reader.ends()):
        for raw in batch:
            told = codec.decode(RHYTHM, raw.value, raw.headers)
            if told is None or pipeline not in ("", told["pipeline"]):
                days.pop(raw.key or b"", None)
            else:
                days[raw.key or b""] = told["pipeline"], came(told["came"])
    found: defaultdict[str, list[Came]] = defaultdict(list)
    for name, day in days.values():
        found[name] += [one for one in day if one.at >= since]
    return dict(found)
