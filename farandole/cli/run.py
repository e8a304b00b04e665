"""``farandole run``: the services themselves."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

from farandole.errors import ATTENTION, FINE


@click.command()
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@click.option("--instances", default=1, show_default=True, type=click.IntRange(1, 256), help="Processes per service.")
@click.option(
    "--until-drained",
    is_flag=True,
    help="End with exit code 0 when all that was there is settled; with 3 where a pipeline is paused or stopped.",
)
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
def run(services: tuple[str, ...], instances: int, *, until_drained: bool, log_level: str) -> int:
    """Run pipelines as services.

    SERVICE is a folder under services/ or module:object. One service with one instance runs in this process;
    several run as processes of their own, and one that dies is started again.

    \b
    Examples:
      farandole run merge
      farandole run landing relationalize merge mart_delays projector
      farandole run merge --instances 2 --until-drained
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.telemetry import configure, logger

    configure(log_level)
    if len(services) == 1 and instances == 1:
        _here(services[0], until_drained=until_drained)
        return FINE
    from farandole.supervisor import Supervisor

    arguments = ["--log-level", log_level, *(["--until-drained"] if until_drained else [])]
    supervisor = Supervisor(arguments, say=logger("supervisor", str(os.getpid())))
    stop = _stop_event(lambda: None)
    try:
        supervisor.start(services, instances)
        while supervisor.look() and not stop.wait(0.2):
            pass
    finally:
        supervisor.stop()
    return ATTENTION if supervisor.attention else FINE


def _here(service: str, *, until_drained: bool) -> None:
    from farandole.settings import load_settings

    settings = load_settings()
    if ":" not in service and (Path("services") / service / "service.py").exists():
        sys.path.insert(0, str(Path.cwd()))
        own = importlib.import_module(f"services.{service}.service")
        own.main(settings, _stop_event(lambda: None), until_drained)
        return
    from farandole.fill import event_class
    from farandole.find import find_declaration, find_resources
    from farandole.resources import Resources
    from farandole.service import worker_of
    from farandole.watchdog import Watchdog, limit_of

    declaration = find_declaration(service)
    for name in (*declaration.topics, *declaration.emits):
        event_class(name)
    with Resources(find_resources(declaration)) as resources:
        workers: list[Any] = []
        stop = _stop_event(lambda: [worker.stopping.set() for worker in workers])
        workers.append(worker := worker_of(declaration, resources, settings, stop))
        if stop.is_set():
            return
        limit = limit_of(settings.client_properties())
        with Watchdog(lambda: worker.source.polls, limit, settings.shutdown_grace, stop, worker.say):
            worker.serve(until_drained=until_drained)


def _stop_event(also: Any) -> threading.Event:
    """SIGTERM and SIGINT end in order; a second one ends at once."""
    stop = threading.Event()

    def on_signal(number: int, _: Any) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
        also()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop
