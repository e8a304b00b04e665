"""The limit: a loop written by hand for this one purpose. Transactions, and a dedup table asked once per batch.

It has what a good engineer writes in a day: exactly once between topics, duplicates dropped by event id. It
has no ledger, no dead letters, no retries, one thread, and its dedup table is not repaired after a crash.
"""

from __future__ import annotations

import signal
import sqlite3

from confluent_kafka import Consumer, Producer
from wire import Race, answered_value, derived, envelope

BATCH = 1000


def main() -> None:
    race = Race.here()
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    table = sqlite3.connect(f"{race.folder}/dedup.db", isolation_level=None)
    table.executescript("pragma journal_mode=wal; pragma synchronous=full")
    table.execute("create table if not exists dedup (id text primary key) without rowid")
    consumer = Consumer(
        {
            "bootstrap.servers": race.bootstrap,
            "group.id": race.group,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 5,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": race.bootstrap,
            "transactional.id": race.group,
            "partitioner": "murmur2_random",
            "linger.ms": 1,
            "retry.backoff.ms": 1,
        }
    )
    producer.init_transactions()
    consumer.subscribe([race.asked])
    while not stopping:
        first = consumer.poll(0.1)
        if first is not None:
            batch = [first, *consumer.consume(BATCH - 1, timeout=0)]
            turn(race, consumer, producer, table, [m for m in batch if not m.error()])
    consumer.close()


def turn(race: Race, consumer: Consumer, producer: Producer, table: sqlite3.Connection, batch: list) -> None:
    ids = [dict(message.headers())["ce_id"].decode() for message in batch]
    known = {found for (found,) in table.execute(f"select id from dedup where id in ({','.join('?' * len(ids))})", ids)}
    producer.begin_transaction()
    for message, ce_id in zip(batch, ids, strict=True):
        if ce_id in known:
            continue
        known.add(ce_id)
        value = answered_value(race, message.value())
        headers = envelope(race.answered, derived(ce_id), ce_id)
        producer.produce(race.answered, value, message.key(), headers=headers)
    producer.send_offsets_to_transaction(consumer.position(consumer.assignment()), consumer.consumer_group_metadata())
    producer.commit_transaction()
    table.execute("begin")
    table.executemany("insert or ignore into dedup values (?)", [(ce_id,) for ce_id in ids])
    table.execute("commit")


if __name__ == "__main__":
    main()
