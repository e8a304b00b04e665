"""Faust with processing_guarantee="exactly_once", without a dedup table."""

from __future__ import annotations

import faust
from wire import Race, answered_value, derived, envelope

race = Race.here()
app = faust.App(
    race.group,
    broker=f"kafka://{race.bootstrap}",
    processing_guarantee="exactly_once",
    store="memory://",
    topic_partitions=6,
    consumer_auto_offset_reset="earliest",
    stream_wait_empty=False,
    web_enabled=False,
    datadir=race.folder,
)
asked = app.topic(race.asked, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
answered = app.topic(race.answered, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


@app.agent(asked)
async def hop(stream):
    async for event in stream.events():
        ce_id = dict(event.headers)["ce_id"].decode()
        await answered.send(
            key=event.key,
            value=answered_value(race, event.value),
            headers=dict(envelope(race.answered, derived(ce_id), ce_id)),
        )


if __name__ == "__main__":
    app.main()
