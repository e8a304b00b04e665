"""Sweeps every FARANDOLE_RECONCILE_EVERY (60s unless said) all pipelines and sources that are declared under services/.

Start as many as there should be left when one falls over: each sends the same events under the same ids, and the
pipelines take them once. While none runs, pipelines go on as they do; only nobody looks whether something was missed.
"""

from __future__ import annotations

import threading

from farandole.find import find_declaration, find_inventory, inventories, services
from farandole.pulse import TURN, pulse
from farandole.reconciler.reconciler import open_reconciler, period
from farandole.service import instance
from farandole.settings import Settings
from farandole.telemetry import logger


def main(settings: Settings, stop: threading.Event, until_drained: bool = False) -> None:  # noqa: FBT001, FBT002 - as every service
    """Sweep until `stop` is set; with `until_drained` once."""
    say = logger("reconciler", instance())
    stocks = {name: find_inventory(name) for name in inventories()}
    declared = [find_declaration(name) for name in services()]
    with open_reconciler(settings, declared, stocks, declared) as reconciler:
        if until_drained:
            reconciler.watch(stop, period(), say, once=True)
            return
        with pulse(settings, "reconciler", say, limit=TURN + period()) as beating:
            reconciler.turned = beating.turn
            reconciler.watch(stop, period(), say)
