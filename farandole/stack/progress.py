"""What a person sees while servers are fetched and started: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Progress:
    """One line or bar per part (kafka, registry, postgres). Safe to use from several threads."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars: Bars | None = None
        self._rows: dict[str, TaskID] = {}
        self._sizes: dict[str, int] = {}
        self._lock = Lock()

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self._quiet:
            self._bars = _bars()
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def say(self, part: str, text: str) -> None:
        """What a part is doing now."""
        with self._lock:
            if self._bars is not None:
                self._bars.update(self._row(part), description=text, fetching=False)
            elif not self._quiet:
                sys.stderr.write(f"{part:10}{text}\n")
                sys.stderr.flush()

    def download(self, part: str) -> Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]:
        """A callback as jgo wants it: called per file with its name and size, gives a counter of bytes."""

        @contextlib.contextmanager
        def file(_name: str, size: int) -> Iterator[Callable[[int], None]]:
            self._grow(part, size)
            yield lambda count: self._advance(part, count)

        return file

    def _row(self, part: str) -> TaskID:
        if part not in self._rows and self._bars is not None:
            self._rows[part] = self._bars.add_task("", total=None, part=part)
        return self._rows[part]

    def _grow(self, part: str, size: int) -> None:
        with self._lock:
            self._sizes[part] = self._sizes.get(part, 0) + size
            if self._bars is not None:
                self._bars.update(self._row(part), total=self._sizes[part], fetching=True)

    def _advance(self, part: str, count: int) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.advance(self._row(part), count)


def _bars() -> Bars:
    """A line per part, with a bar only while it is being fetched."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
    )
    from rich.text import Text

    class WhileFetching(ProgressColumn):
        def __init__(self, column: ProgressColumn) -> None:
            super().__init__()
            self._column = column

        def render(self, task: Task) -> Any:
            return self._column.render(task) if task.fields.get("fetching") else Text()

    columns = (SpinnerColumn(), TextColumn("{task.fields[part]:10}"), TextColumn("{task.description}"))
    fetching = (WhileFetching(BarColumn()), WhileFetching(DownloadColumn()))
    return Progress(*columns, *fetching, console=Console(stderr=True), transient=True)
