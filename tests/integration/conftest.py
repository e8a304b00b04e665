"""A world of its own for each test of the runtime."""

from __future__ import annotations

import pytest

from tests.conftest import own_servers
from tests.integration.runtime_world import World

APART = {
    *("test_clock", "test_close", "test_gaps_by_command", "test_rhythm", "test_sentinel", "test_watchers", "test_why"),
    "test_reading_the_ledger",
}
"""Files that judge what stands on topics which all share (ticks, beats, expectations, the whole ledger)."""


@pytest.fixture(scope="module")
def stack(request):
    """The servers that a worker's files share; a file of APART has its own, whatever else runs before it."""
    if request.module.__name__.rpartition(".")[2] in APART:
        with own_servers() as servers:
            yield servers
    else:
        yield request.getfixturevalue("stack")


@pytest.fixture
def world(stack, tmp_path, monkeypatch):
    monkeypatch.setenv("FARANDOLE_SCHEMAS", str(tmp_path / "world" / "avro"))
    made = World(stack.bootstrap_servers, stack.registry_url, tmp_path / "world")
    try:
        yield made
    finally:
        made.close()
