"""A world of its own for each test of the runtime."""

from __future__ import annotations

import pytest

from tests.integration.runtime_world import World


@pytest.fixture
def world(stack, tmp_path, monkeypatch):
    monkeypatch.setenv("FARANDOLE_SCHEMAS", str(tmp_path / "world" / "avro"))
    made = World(stack.bootstrap_servers, stack.registry_url, tmp_path / "world")
    try:
        yield made
    finally:
        made.close()
