"""The path of a source's files: ``flights/%Y/%m/%d/%H/*.csv`` says which files, and for which interval."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from farandole.event import Interval

_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2}


class PathPattern:
    """Which paths are a source's, and the data interval that each path names.

    >>> str(PathPattern("flights/%Y/%m/%d/%H/*.csv").interval("flights/2013/01/31/23/part-0.csv"))
    '2013-01-31T23:00Z/2013-02-01T00:00Z'

    ``*`` stands for any name that is not hidden. Raises ValueError for a pattern that names no time.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.prefix = re.split(r"[%*]", text, maxsplit=1)[0].rpartition("/")[0]
        self._directives: list[str] = []
        self._regex = re.compile("".join(self._piece(p) for p in re.split(r"(%.|\*)", text)))
        order = "YmdHM"
        if sorted(self._directives, key=order.index) != list(order[: len(self._directives)]) or not self._directives:
            raise ValueError(f"path {text!r} must name a time without a hole: %Y, then %m, %d, %H, %M as far as needed")

    def _piece(self, piece: str) -> str:
        if piece == "*":
            return r"(?!\.)[^/]+"
        if not piece.startswith("%"):
            return re.escape(piece)
        name = piece[1:]
        if name not in _DIGITS:
            raise ValueError(f"path {self.text!r}: {piece} is none of %Y %m %d %H %M")
        if name in self._directives:
            return f"(?P={name})"
        self._directives.append(name)
        return rf"(?P<{name}>\d{{{_DIGITS[name]}}})"

    def interval(self, path: str) -> Interval | None:
        """The interval that `path` (relative to the raw folder) is about; None where it is not this source's."""
        match = self._regex.fullmatch(path)
        if match is None:
            return None
        parts = [int(match[name]) for name in "YmdHM" if name in self._directives]
        try:
            start = datetime(*(parts + [1] * (3 - len(parts))), tzinfo=UTC)  # type: ignore[misc,arg-type]
        except ValueError:  # a month 13: no such time, so no file of ours
            return None
        return Interval(start, _end(start, len(parts)))


def _end(start: datetime, depth: int) -> datetime:
    if depth == 1:
        return start.replace(year=start.year + 1)
    if depth == 2:  # noqa: PLR2004  year and month
        return (start + timedelta(days=32)).replace(day=1)
    return start + {3: timedelta(days=1), 4: timedelta(hours=1), 5: timedelta(minutes=1)}[depth]
