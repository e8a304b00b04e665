"""Files that appear in a folder or bucket, told as events whose ids are derived: a rescan is harmless."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from fsspec.core import url_to_fs

from farandole.event import Interval
from farandole.sources.metadata import Source
from farandole.sources.pattern import PathPattern

EVENT_SOURCE = "/farandole/lake/landing"
"""The `ce_source` of every landing."""

_NAMESPACE = uuid.UUID("0b0d9a55-5a53-5a0e-8f0e-2f7c6d1b7a10")
Seen = MutableMapping[str, tuple[int, str]]
"""What a scanner remembers between passes: size and stamp by uri. A saving only: ids are derived all the same."""


@dataclass(frozen=True, slots=True)
class Landed:
    """A file that stands complete in the raw folder. `size` in bytes; `digest` is of the content, in hex."""

    uri: str
    source: str
    format: str
    interval: Interval
    size: int
    digest: str

    @property
    def event_id(self) -> str:
        """From address and content, never from a time: the same file gives the same event."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.uri}\x00{self.size}\x00{self.digest}"))


def scan(root: str, sources: Iterable[Source], seen: Seen | None = None) -> list[Landed]:
    """The files under `root` (a folder or an fsspec url) that are some source's and new or changed since `seen`.

    In order of interval, source and address. Hidden files (``.x``) are never taken: that is what a file is
    called while it is written. Raises FileNotFoundError where `root` does not exist.
    """
    fs, base = url_to_fs(root)
    if not fs.isdir(base):
        raise FileNotFoundError(f"the raw folder {root} does not exist")
    found: list[Landed] = []
    for source in sources:
        pattern = PathPattern(source.path)
        for path, info in _files(fs, f"{base}/{pattern.prefix}"):
            interval = pattern.interval(path[len(base) + 1 :])
            if interval is None:
                continue
            uri = fs.unstrip_protocol(path)
            stamp = (int(info["size"]), str(info.get("mtime") or info.get("ETag") or info.get("LastModified") or ""))
            if seen is not None and seen.get(uri) == stamp:
                continue
            digest = _digest(fs, path)
            found.append(Landed(uri, source.source, source.format, interval, stamp[0], digest))
            if seen is not None:
                seen[uri] = stamp
    return sorted(found, key=lambda f: (f.interval, f.source, f.uri))


def strays(root: str, sources: Iterable[Source]) -> list[str]:
    """Files under `root` that belong to no declared source: they would wait for ever, so somebody should know."""
    fs, base = url_to_fs(root)
    patterns = [PathPattern(source.path) for source in sources]
    return [
        fs.unstrip_protocol(path)
        for path, _ in _files(fs, base)
        if not path.rpartition("/")[2].startswith(".")
        and all(pattern.interval(path[len(base) + 1 :]) is None for pattern in patterns)
    ]


def _files(fs: Any, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if fs.isdir(folder):
        yield from sorted(fs.find(folder, detail=True).items())


def _digest(fs: Any, path: str) -> str:
    digest = blake2b(digest_size=16)
    with fs.open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
