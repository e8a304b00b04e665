"""Brokers that forget the offsets of empty groups after a minute: a group that is looked after keeps its own."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from farandole.clock import SystemClock
from farandole.kafka.admin import Admin
from farandole.reconciler.asleep import Asleep
from farandole.stack.launcher import Stack

FORGETFUL = {"offsets.retention.minutes": "1", "offsets.retention.check.interval.ms": "5000"}


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_a_group_that_sleeps_for_longer_than_the_brokers_remember_keeps_its_offsets():
    with tempfile.TemporaryDirectory(prefix="farandole-test-", ignore_cleanup_errors=True) as place:
        stack = Stack(Path(place) / ".farandole", usual_ports=False)
        try:
            bootstrap = stack.start_kafka(properties=FORGETFUL).address
            admin = Admin(bootstrap)
            admin.create("slept.v1", partitions=2, replication=1, settings={})
            for group in ("watched", "forgotten"):
                _commit(bootstrap, group)
            asleep, end = Asleep(admin, SystemClock(), every=20.0), time.monotonic() + 150
            while admin.committed("forgotten"):
                assert time.monotonic() < end, "the broker forgets nothing"
                asleep.keep("watched")
                time.sleep(2)
            kept = {place: (at.offset, at.metadata) for place, at in admin.committed("watched").items()}
            assert kept == {("slept.v1", 0): (0, "mark 0"), ("slept.v1", 1): (0, "mark 1")}
        finally:
            stack.down()


def _commit(bootstrap: str, group: str) -> None:
    """As a pipeline does: offsets with a text, and then nobody is there any more."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    consumer.subscribe(["slept.v1"])
    while len(consumer.assignment()) < 2:
        consumer.poll(0.1)
    at = [TopicPartition("slept.v1", p, 0, f"mark {p}") for p in range(2)]
    consumer.commit(offsets=at, asynchronous=False)
    consumer.close()
