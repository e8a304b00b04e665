"""A topic that was deleted and created anew is gone on with once a person has said so: a command to all who read it."""

from __future__ import annotations

from collections.abc import Sequence

from farandole.control import ACCEPT, Command, cut_id_of, topic_id_of
from farandole.errors import FarandoleError
from farandole.kafka.admin import Admin
from farandole.kafka.control import Control


def accept(
    admin: Admin,
    control: Control,
    topic: str,
    *,
    actor: str,
    reason: str = "",
    cuts: Sequence[tuple[int, int]] = (),
) -> str:
    """Accept a topic as it stands, and return the UUID that was accepted.

    Pipelines that were stopped because it is another topic than the one they knew go on with it from its beginning;
    to all others it means nothing. With `cuts`, partitions and the offsets at which pipelines stopped in them because
    their logs end before, those go on instead. Raises FarandoleError where the topic is not there.
    """
    there = admin.topics([topic])
    if topic not in there:
        raise FarandoleError(
            f"topic {topic} does not exist", place="topology accept", hint="create it: farandole topology apply"
        )
    topic_id = there[topic].topic_id
    detail = {"topic": topic, "topic_id": topic_id}
    names = [cut_id_of(topic_id, partition, offset) for partition, offset in cuts] or [topic_id_of(topic)]
    control.give(*(Command(name, ACCEPT, actor=actor, reason=reason, detail=detail) for name in names))
    return topic_id
