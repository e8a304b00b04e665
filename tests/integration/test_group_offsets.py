"""Offsets of a group are asked for while the cluster has no coordinator yet: the client of Kafka must not die of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farandole.stack.launcher import Stack

ASK = """
import sys
from farandole.kafka.admin import Admin

for n in range(20):
    assert Admin(sys.argv[1]).committed(f"{sys.argv[2]}-{n}") == {}
"""


@pytest.mark.timeout(120)
def test_the_offsets_of_groups_can_be_asked_for_as_soon_as_a_broker_answers():
    with tempfile.TemporaryDirectory(prefix="farandole-test-", ignore_cleanup_errors=True) as place:
        stack = Stack(Path(place) / ".farandole", usual_ports=False)
        try:
            bootstrap = stack.start_kafka().address

            def asked(name: str) -> int:
                return subprocess.run([sys.executable, "-c", ASK, bootstrap, name], check=False, timeout=90).returncode

            with ThreadPoolExecutor(3) as threads:
                assert list(threads.map(asked, "abc")) == [0, 0, 0]
        finally:
            stack.down()
