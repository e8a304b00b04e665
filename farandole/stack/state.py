"""What the launcher remembers of its servers: ``stack.json`` in the state folder, and the lock beside it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import RLock

from farandole.errors import StackError

FILE = "stack.json"


@dataclass(frozen=True, slots=True)
class Server:
    """One server: its process (pid 0 when stopped), its ports by use, and the address clients are told."""

    name: str
    address: str
    ports: dict[str, int]
    pid: int = 0
    started: float = 0.0  # the process's start time: a pid alone may have been given to somebody else
    log: str = ""
    container: str = ""
    properties: dict[str, str] = field(default_factory=dict)


class StateFile:
    """The servers of one state folder, by name. Written whole and at once, so a reader never sees half of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._writing = RLock()

    def servers(self) -> dict[str, Server]:
        """Every server the launcher knows here, running or not, by name. Raises StackError for an unreadable file."""
        try:
            read = json.loads(self.path.read_text())
            return {name: Server(**value) for name, value in sorted(read["servers"].items())}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StackError(
                f"the state file cannot be read: {error}",
                place=str(self.path),
                hint="move it away and run `farandole up` again; the servers' data is beside it and is not touched",
            ) from error

    def get(self, name: str) -> Server | None:
        """One server, or None."""
        return self.servers().get(name)

    def put(self, server: Server) -> None:
        """Remember a server."""
        with self._writing:
            self._write({**self.servers(), server.name: server})

    def _write(self, servers: dict[str, Server]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(f".{os.getpid()}.new")
        draft.write_text(json.dumps({"servers": {name: asdict(server) for name, server in servers.items()}}, indent=1))
        draft.replace(self.path)


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file at `path`; `waiting` is called once, with its holder, if another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            waiting(f"process {file.read().strip() or 'unknown'} is at work on {path.parent}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield
