"""`farandole alerts test`: whether people would be told."""

from __future__ import annotations

from dataclasses import asdict

import click

from farandole.cli.answer import actor
from farandole.cli.output import emit, output_option
from farandole.errors import ERROR, FINE, FarandoleError


@click.group()
def alerts() -> None:
    """Alerts: the routes by which people are told what did not come."""


@alerts.command("test")
@output_option
def try_routes(output: str | None) -> int:
    """Send a test alert by every route that is set, and say which worked. Leaves with 1 when one did not.

    \b
    Examples:
      farandole alerts test
      FARANDOLE_ALERT_ROUTES=json://localhost:8080/alerts farandole alerts test -o json
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from farandole.alerts import PLACE, Routes, trial
    from farandole.clock import SystemClock
    from farandole.settings import load_settings

    routes = Routes(load_settings().routes())
    if not len(routes):
        raise FarandoleError(
            "no route is set: nobody would be told",
            place=PLACE,
            hint='write routes = ["json://host:8080/path"] below [alerts] in farandole.toml',
        )
    tried = routes.tried(trial(actor(), SystemClock().now()))
    emit([asdict(one) for one in tried], output, columns=("route", "worked", "why"))
    return FINE if all(one.worked for one in tried) else ERROR
