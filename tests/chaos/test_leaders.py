"""A partition gets another leader: who asked the old one asks the new one next."""

from __future__ import annotations

import contextlib
import time
import uuid
from functools import partial

import pytest
from confluent_kafka.admin import AdminClient

from farandole.errors import FarandoleError
from farandole.kafka.admin import Admin
from tests.chaos.conftest import Cluster
from tests.chaos.faults import broker, patiently

pytestmark = pytest.mark.chaos


@pytest.mark.timeout(180)
def test_offsets_are_read_from_a_new_leader_by_a_client_that_knew_the_old_one(cluster: Cluster):
    topic = f"led-{uuid.uuid4().hex[:8]}"
    outside = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin = Admin(cluster.bootstrap, timeout=5)
    admin.create(topic, partitions=1, replication=3, settings={"min.insync.replicas": "1"})

    def leader() -> int:
        return outside.list_topics(topic, timeout=20).topics[topic].partitions[0].leader

    assert admin.ends([(topic, 0)], committed=False) == {(topic, 0): 0}
    first = leader()
    cluster.stack.kill(broker(first))
    _until(lambda: leader() not in (-1, first))
    patiently(partial(cluster.stack.up, with_postgres=True))
    _until(lambda: _answers(admin, topic))


def _answers(admin: Admin, topic: str) -> bool:
    with contextlib.suppress(FarandoleError):
        return admin.ends([(topic, 0)], committed=False) == {(topic, 0): 0}
    return False


def _until(told, timeout: float = 45.0) -> None:
    end = time.monotonic() + timeout
    while not told():
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.5)
