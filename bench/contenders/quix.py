"""Quix Streams, exactly-once, without a dedup table: what it does best. Its own look at time is `commit_interval`."""

from __future__ import annotations

import os

from quixstreams import Application
from wire import Race, answered_value, derived, envelope


def main() -> None:
    race = Race.here()
    app = Application(
        race.bootstrap,
        consumer_group=race.group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=float(os.environ.get("HOP_QUIX_INTERVAL", "0.01")),
        commit_every=1000,
        consumer_poll_timeout=0.005,
        state_dir=race.folder,
        loglevel="WARNING",
        auto_create_topics=False,
        consumer_extra_config={"fetch.wait.max.ms": 5},
        producer_extra_config={"retry.backoff.ms": 1, "linger.ms": 1},
    )

    def headers_of(_value: bytes, _key: bytes, _timestamp: int, headers: list) -> list:
        ce_id = dict(headers)["ce_id"].decode()
        return envelope(race.answered, derived(ce_id), ce_id)

    asked = app.topic(race.asked, key_deserializer="bytes", value_deserializer="bytes")
    answered = app.topic(race.answered, key_serializer="bytes", value_serializer="bytes")
    frame = app.dataframe(asked)
    frame = frame.apply(lambda value: answered_value(race, value))
    frame = frame.set_headers(headers_of)
    frame.to_topic(answered)
    app.run()


if __name__ == "__main__":
    main()
