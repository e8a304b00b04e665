"""Landing: files that appear in the raw folder are told as ``lake.file.landed.v1``. A source, not a consumer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from farandole.sources.files import Seen, scan
from farandole.sources.metadata import Source
from schemas.events import FileLanded


def landed_events(root: str, sources: Iterable[Source], seen: Seen | None = None) -> Iterator[tuple[str, FileLanded]]:
    """The files that are new under `root` since `seen`, each with the id of its event, in order of interval.

    The ids come from address and content: told twice, by whatever instance, a file is one event.
    """
    for file in scan(root, sources, seen):
        event = FileLanded(file.uri, file.source, file.format, file.interval, file.size, file.digest)
        yield file.event_id, event
