"""Telling people: by every route that is named, once per absence, and again when it is over.

Routes are addresses as the library ``apprise`` reads them: ``json://host:8080/path`` (a webhook), ``slack://…``,
``mailto://…``. Delivery is at least once; the alert's id is the same in every copy.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from farandole.beat import Beat
from farandole.clock import iso, iso_of
from farandole.errors import FarandoleError, SettingsError
from farandole.expectation import Expectation

PLACE = "FARANDOLE_ALERT_ROUTES"


@dataclass(frozen=True, slots=True)
class Alert:
    """What people are told. `id` is the same however often it is sent."""

    id: str
    title: str
    text: str
    over: bool = False


def alert_of(row: Expectation, kind: Literal["missed", "resolved"]) -> Alert:
    """The alert that an expectation is missed, or that it is no more.

    >>> from datetime import UTC, datetime
    >>> from farandole.event import Interval
    >>> noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    >>> alert_of(Expectation("mart by noon", "mart", "mart", noon, Interval(noon, noon)), "missed").title
    'MISSING mart, due 2026-11-24T12:00:00.000Z'
    """
    what = f"a run of {row.pipeline}" if row.pipeline else f"an event {row.event_type}"
    if row.where:
        what += f" where {row.where}"
    about = f" about {row.interval}" if row.interval else ""
    if kind == "missed":
        title = f"MISSING {row.name}, due {iso(row.deadline)}"
        text = f"Nothing shows that {what}{about} has come. It was due {iso(row.deadline)}."
        hourly = " hour " in row.expectation  # a day has many of those
        remedy = f"farandole expect waive {row.name} {iso(row.deadline) if hourly else row.day} --reason …"
        when = f"{iso(row.interval.start)}/{iso(row.interval.end)}" if row.interval else row.day
        why = f"Why: farandole why {row.pipeline} --for {when}\n" if row.pipeline else ""
        return Alert(f"{row.id} missed", title, f"{text}\n{why}If nothing will come: {remedy}\nalert {row.id} missed")
    how = {"met_late": "it came late", "waived": f"waived by {row.actor}: {row.reason}"}.get(
        row.state, "it comes again"
    )
    at = f", {iso(row.arrived_at)}" if row.arrived_at else ""
    text = f"Expected was {what}{about} by {iso(row.deadline)}: {how}{at}.\nalert {row.id} resolved"
    return Alert(f"{row.id} resolved", f"RESOLVED {row.name}, due {iso(row.deadline)}", text, over=True)


@dataclass(frozen=True, slots=True)
class Tried:
    """How a test alert went by one route: its address, without passwords, and what it said where it did not work."""

    route: str
    worked: bool
    why: str


def trial(actor: str, now: datetime) -> Alert:
    """An alert that only shows that its route works."""
    text = f"A test that {actor} sent {iso(now)}. Nothing is wrong, and nothing has to be done."
    return Alert(f"test {iso(now)}", "TEST of this route", text, over=True)


_WITHOUT = {
    "sentinel": "nobody notices what does not come",
    "reconciler": "nobody looks whether an event was missed",
    "clock": "no schedule ticks",
    "projector": "what `farandole status` and its like answer grows older",
}
"""What is not done while a role is silent."""


def alert_of_watcher(kind: Literal["watcher.silent", "watcher.back"], last: Beat) -> Alert:
    """The alert that nobody beats in a role any more, or that somebody does again.

    >>> alert_of_watcher("watcher.silent", Beat("clock", "a", at=1_356_998_400_000)).title
    'SILENT clock, since 2013-01-01T00:00:00.000Z'
    """
    since, key = iso_of(last.at), f"watcher {last.role} {last.at}"
    if kind == "watcher.back":
        text = f"The {last.role} is at work again; its last beat before was {since}.\nalert {key} resolved"
        return Alert(f"{key} resolved", f"BACK {last.role}, silent since {since}", text, over=True)
    text = f"No {last.role} has given a sign since {since}: {_WITHOUT.get(last.role, 'its work is not done')}."
    remedy = f"Pipelines go on. Start it, or see why it hangs: farandole run {last.role}"
    return Alert(f"{key} missed", f"SILENT {last.role}, since {since}", f"{text}\n{remedy}\nalert {key} missed")


class Routes:
    """The routes alerts go by. Raises SettingsError for an address that no service takes."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._routes = [_route(address, at) for at, address in enumerate(addresses, 1)]
        self._delivered: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self._routes)

    def tell(self, row: Expectation, kind: Literal["missed", "resolved"]) -> None:
        """Send what is to be told of a row by every route. Raises FarandoleError where one did not take it."""
        self.send(alert_of(row, kind))

    def tried(self, alert: Alert) -> list[Tried]:
        """Send an alert by every route, whatever each has taken before; how each went."""
        from apprise import LogCapture, NotifyType

        found = []
        for route in self._routes:
            with LogCapture(level=logging.WARNING, fmt="%(message)s") as said:  # type: ignore[no-untyped-call]
                worked = bool(route.notify(body=alert.text, title=alert.title, notify_type=NotifyType.INFO))
                why = "" if worked else " ".join(said.getvalue().split())
            found.append(Tried(route.url(privacy=True), worked, why))
        return found

    def send(self, alert: Alert) -> None:
        """Send an alert by every route that has not taken it yet. Raises FarandoleError, naming those that failed."""
        from apprise import NotifyType

        failed = []
        for route in self._routes:
            name = route.url(privacy=True)
            if (alert.id, name) in self._delivered:
                continue
            kind = NotifyType.SUCCESS if alert.over else NotifyType.FAILURE
            if route.notify(body=alert.text, title=alert.title, notify_type=kind):
                self._delivered.add((alert.id, name))
            else:
                failed.append(name)
        if failed:
            raise FarandoleError(
                f"not taken by {', '.join(failed)}", place=PLACE, hint="farandole alerts test tries every route"
            )


def _route(address: str, at: int) -> Any:
    try:
        from apprise import Apprise
    except ModuleNotFoundError as missing:
        raise FarandoleError(
            f"alerts need {missing.name}, which is not installed", hint="pip install 'farandole[alerts]'"
        ) from missing
    route = Apprise.instantiate(address)
    if route is None:  # the address itself may hold a password
        scheme = address.partition("://")[0]
        raise SettingsError(
            f"route {at} ({scheme}://…) is no address that an alert can go to",
            place=PLACE,
            hint="write it as apprise does: json://host:8080/path, slack://…, mailto://…",
        )
    return route
