"""Processes of services: which are started again, and how it is told that one asked for attention."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from farandole.supervisor import Supervisor


@pytest.mark.parametrize(("codes", "attention"), [((0, 0), False), ((0, 3), True)])
def test_a_service_that_ends_in_order_or_asks_for_attention_is_not_started_again(monkeypatch, codes, attention):
    left = list(codes)
    supervisor = Supervisor()
    monkeypatch.setattr(
        supervisor,
        "_spawn",
        lambda *_: subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({left.pop(0)})"]),
    )
    supervisor.start(["merge"], 2)
    end = time.monotonic() + 20
    while supervisor.look():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert (left, supervisor.attention) == ([], attention)
