"""Business days of a country, a part of it, or an exchange, as the library ``holidays`` knows them."""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import Any

from farandole.errors import FarandoleError

_SATURDAY = 5


def is_business_day(calendar: str, day: date) -> bool:
    """Whether work is done on that day: no weekend and no holiday of the calendar. Half days count as days.

    Without a calendar it is Monday to Friday.

    >>> is_business_day("US", date(2013, 7, 4)), is_business_day("FR", date(2013, 7, 4))
    (False, True)
    """
    if not calendar:
        return day.weekday() < _SATURDAY
    return bool(_calendar(calendar).is_working_day(day))


def calendar_problem(calendar: str) -> str:
    """What is wrong with the name of a calendar; empty if nothing is."""
    country, _, part = calendar.partition("-")
    if calendar in _library().list_supported_financial():
        return ""
    countries = _library().list_supported_countries(include_aliases=False)
    if country not in countries:
        return f"there is no calendar {calendar!r}"
    if part and part not in countries[country]:
        return f"{country} has no calendar of its part {part!r}"
    return ""


def calendars() -> list[str]:
    """The name of every calendar: countries, their parts (``US-NY``), exchanges (``XNYS``)."""
    countries = _library().list_supported_countries(include_aliases=False)
    parts = [f"{country}-{part}" for country, all_parts in countries.items() for part in all_parts]
    return [*countries, *_library().list_supported_financial(), *parts]


@cache
def _calendar(name: str) -> Any:
    if name in _library().list_supported_financial():
        return _library().financial_holidays(name)
    country, _, part = name.partition("-")
    return _library().country_holidays(country, subdiv=part or None)


@cache
def _library() -> Any:
    """The library, imported when a calendar is asked for: half a second."""
    try:
        import holidays
    except ModuleNotFoundError as missing:
        raise FarandoleError(
            f"a calendar needs {missing.name}, which is not installed", hint="pip install 'farandole[clock]'"
        ) from missing
    return holidays
