"""Where the lake's files are: a folder or a bucket, and how a file comes to stand there whole or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem


class Folder:
    """A folder or an fsspec url such as ``s3://bucket/lake``. Paths given to it are relative to it."""

    def __init__(self, url: str) -> None:
        self.fs, base = url_to_fs(url)
        self.local = isinstance(self.fs, LocalFileSystem)
        self.base: str = base.rstrip("/")

    def path(self, relative: str) -> str:
        """The path as this file system names it."""
        return f"{self.base}/{relative}"

    def uri(self, relative: str) -> str:
        """The absolute address that events carry."""
        return str(self.fs.unstrip_protocol(self.path(relative)))

    def open(self, uri: str) -> IO[bytes]:
        """Any absolute address, for reading. Raises FileNotFoundError."""
        fs, path = url_to_fs(uri)
        handle: IO[bytes] = fs.open(path, "rb")
        return handle

    @contextmanager
    def replacing(self, relative: str) -> Iterator[IO[bytes]]:
        """Write a file that appears whole when the block ends, and not at all if the block raises.

        On disk: a hidden name, fsync, rename, fsync of the folder. In a bucket: one upload, which is
        atomic there. Writing the same path twice leaves the second.
        """
        if self.local:
            with _on_disk(Path(self.path(relative))) as handle:
                yield handle
            return
        with tempfile.NamedTemporaryFile(suffix=".part") as handle:
            yield handle
            handle.flush()
            target = self.path(relative)
            self.fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self.fs.put_file(handle.name, target)


@contextmanager
def _on_disk(target: Path) -> Iterator[Any]:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)
