"""Sweeps every FARANDOLE_RECONCILE_EVERY (60s unless said) all pipelines and sources that are declared under services/.

One that cannot be read is named, in the log and in each sweep's report, and the others are swept.

Start as many as there should be left when one falls over: each sends the same events under the same ids, and the
pipelines take them once. While none runs, pipelines go on as they do; only nobody looks whether something was missed.
"""

from __future__ import annotations

import threading

from farandole.find import find_declaration, find_inventory, inventories, readable, services
from farandole.pulse import TURN, pulse
from farandole.reconciler.reconciler import open_reconciler, period
from farandole.service import instance
from farandole.settings import Settings
from farandole.telemetry import logger


def main(settings: Settings, stop: threading.Event, until_drained: bool = False) -> None:  # noqa: FBT001, FBT002 - as every service
    """Sweep until `stop` is set; with `until_drained` once."""
    say = logger("reconciler", instance())
    stocks, wrong_stocks = readable(inventories(), find_inventory)
    declared, wrong = readable(services(), find_declaration)
    unreadable = wrong_stocks | wrong
    for service, why in unreadable.items():
        say("reconciler.unreadable", service=service, why=why)
    pipelines = list(declared.values())
    with open_reconciler(settings, pipelines, stocks, pipelines, unreadable) as reconciler:
        if until_drained:
            reconciler.watch(stop, period(), say, once=True)
            return
        with pulse(settings, "reconciler", say, limit=TURN + period()) as beating:
            reconciler.turned = beating.turn
            reconciler.watch(stop, period(), say)
