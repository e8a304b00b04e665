"""The servers' programs: fetched once by Maven coordinate, kept in the user's cache, shared by all stacks.

The class path is resolved with jgo's resolver and not with its environment builder, which would fetch a
second Java to sort the jars. A part is complete when its ``ready.json`` stands; a file is moved to its place
when it is whole, so a download that was cut off, even by SIGKILL, is taken up where it was.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farandole.errors import StackError
from farandole.stack.progress import Progress
from farandole.stack.state import locked

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA = "org.apache.kafka:kafka_2.13:4.4.0"
TOOLS = "org.apache.kafka:kafka-tools:4.4.0"
LOGGER = "org.slf4j:slf4j-simple:1.7.36"
"""Kafka brings the logging interface only; without this its log would stay empty, whatever happens to it."""
REGISTRY = "io.apicurio:apicurio-registry-app:3.3.3"
NEEDED = 1024**3  # bytes free on the disk before a download is begun
_TRIES = 3
_TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True, slots=True)
class Depot:
    """Where programs are kept, and where they come from (`mirror`: a Maven repository instead of Central)."""

    cache: Path
    mirror: str = ""

    @classmethod
    def of_environment(cls, mirror: str | None = None) -> Depot:
        """By FARANDOLE_CACHE (else the user's cache folder) and FARANDOLE_MAVEN_MIRROR, unless `mirror` is given."""
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(os.environ.get("FARANDOLE_CACHE") or Path(home) / "farandole")
        source = os.environ.get("FARANDOLE_MAVEN_MIRROR", "") if mirror is None else mirror
        return cls(cache.absolute(), source.rstrip("/"))

    def kafka(self, progress: Progress) -> str:
        """Kafka's class path, fetched if it is not here yet."""
        return os.pathsep.join(self._part("kafka", (KAFKA, LOGGER), progress, _fetch_classpath))

    def kafka_tools(self, progress: Progress) -> str:
        """The class path of Kafka's own command-line tools, which no server needs; fetched if it is not here yet."""
        return os.pathsep.join(self._part("kafka-tools", (TOOLS, LOGGER), progress, _fetch_classpath))

    def registry(self, progress: Progress) -> Path:
        """The registry's ``quarkus-run.jar``, fetched and unpacked if it is not here yet."""
        return Path(self._part("registry", (REGISTRY,), progress, _fetch_archive)[0])

    def _part(self, part: str, coordinates: tuple[str, ...], progress: Progress, fetch: Fetch) -> list[str]:
        folder = self.cache / coordinates[0].replace(":", "-")
        ready = folder / "ready.json"
        if (files := _complete(ready, coordinates)) is None:
            with locked(self.cache / f"{part}.lock", lambda text: progress.say(part, text)):
                if (files := _complete(ready, coordinates)) is None:
                    enough_disk(self.cache)
                    progress.say(part, f"fetching {coordinates[0]}")
                    files = self._fetch(coordinates, folder, progress.download(part), fetch)
                    ready.write_text(json.dumps({"of": coordinates, "files": files}))
        return files

    def _fetch(self, coordinates: tuple[str, ...], folder: Path, count: Counter, fetch: Fetch) -> list[str]:
        import requests

        try:
            with requests.Session() as session:
                context = self._context(folder / "m2", session, count)
                return [str(path) for path in fetch(context, coordinates, folder)]
        except requests.RequestException as error:
            raise self._unreachable(coordinates[0], error) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(folder) from error
            raise
        except RuntimeError as error:  # jgo's word for "no repository has it"
            raise self._unreachable(coordinates[0], error) from error

    def _context(self, repository: Path, session: Any, count: Counter) -> MavenContext:
        from jgo.maven import MavenContext

        remote = {"mirror": self.mirror} if self.mirror else None
        return MavenContext(_resolver(session, count), repo_cache=repository, remote_repos=remote)

    def _unreachable(self, coordinate: str, error: Exception) -> StackError:
        source = f"the Maven repository {self.mirror}" if self.mirror else "Maven Central"
        proxies = ", ".join(
            f"{name} is {'set' if os.environ.get(name) else 'unset'}" for name in ("HTTPS_PROXY", "NO_PROXY")
        )
        return StackError(
            f"{source} cannot be reached, or does not have {coordinate}: {_first_line(error)}",
            place="FARANDOLE_MAVEN_MIRROR" if self.mirror else "",
            hint=f"check the network and the proxy ({proxies}), or set FARANDOLE_MAVEN_MIRROR to a Maven "
            "repository that this machine reaches; what was fetched so far is kept",
        )


Fetch = Callable[["MavenContext", tuple[str, ...], Path], list[Path]]
Counter = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Called per file with its name and size; gives a function that is told of every chunk's bytes."""


def enough_disk(folder: Path) -> None:
    """Raise StackError when less than 1 GB is free where `folder` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < NEEDED:
        raise StackError(
            f"only {free // 1024**2} MB are free on this disk; the servers need 1024 MB",
            place=str(folder),
            hint="free some space, or set FARANDOLE_CACHE and FARANDOLE_STATE to folders on another disk",
        )


def _complete(ready: Path, coordinates: tuple[str, ...]) -> list[str] | None:
    try:
        found = json.loads(ready.read_text())
        files: list[str] = found["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files if found.get("of") == list(coordinates) and all(Path(file).exists() for file in files) else None


def _fetch_classpath(context: MavenContext, coordinates: tuple[str, ...], _folder: Path) -> list[Path]:
    top, *beside = map(context.create_dependency, coordinates)
    inputs, further = context.resolver.resolve([top])
    wanted = [*inputs, *(each for each in further if each.scope in ("compile", "runtime")), *beside]
    with ThreadPoolExecutor(6, "farandole-fetch") as pool:
        return list(pool.map(lambda each: each.artifact.resolve(), wanted))


def _fetch_archive(context: MavenContext, coordinates: tuple[str, ...], folder: Path) -> list[Path]:
    group, artifact, version = coordinates[0].split(":")
    archive = context.project(group, artifact).at_version(version).artifact("all", "tar.gz").resolve()
    draft, home = folder / "app.new", folder / "app"
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(draft, filter="data")
    except (tarfile.TarError, EOFError) as error:
        archive.unlink()
        raise RuntimeError(f"{archive.name} is damaged: {error}") from error
    draft.rename(home)
    archive.unlink()  # 158 MB that nobody needs again
    return [next(home.rglob("quarkus-run.jar"))]


def _resolver(session: Any, count: Counter) -> Any:
    """The resolver of jgo with a download of ours: one connection kept, checksums held, no half file in place."""
    import requests
    from jgo.maven import PythonResolver

    for scheme in ("https://", "http://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=_TRIES))

    class SessionResolver(PythonResolver):
        def download(self, artifact: Any) -> Path:
            target: Path = artifact.cached_path
            target.parent.mkdir(parents=True, exist_ok=True)
            for repository in artifact.context.remote_repos.values():
                url = f"{repository}/{artifact.component.path_prefix.as_posix()}/{artifact.filename}"
                for left in reversed(range(_TRIES)):
                    try:
                        if _download(session, url, target, count):
                            return target
                        break
                    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ReadTimeout):
                        if not left:
                            raise
            raise RuntimeError(f"{artifact.filename} is in none of {list(artifact.context.remote_repos.values())}")

    return SessionResolver()


def _download(session: Any, url: str, target: Path, counter: Counter) -> bool:
    """Fetch one file beside its place and move it there when its checksum is right; False if it is not there."""
    with session.get(url, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return False
        answer.raise_for_status()
        sum_ = hashlib.sha1(usedforsecurity=False)  # the one checksum that every Maven repository publishes
        draft = target.with_name(f"{target.name}.part")
        with counter(target.name, int(answer.headers.get("content-length", 0))) as count, draft.open("wb") as file:
            for chunk in answer.iter_content(1 << 16):
                file.write(chunk)
                sum_.update(chunk)
                count(len(chunk))
    published = session.get(f"{url}.sha1", timeout=_TIMEOUT)
    if published.ok and (said := published.text.split()[:1]) and said != [sum_.hexdigest()]:
        raise RuntimeError(f"{url} is damaged: its checksum is {sum_.hexdigest()}, published is {said[0]}")
    draft.replace(target)
    return True


def _disk_full(folder: Path) -> StackError:
    return StackError(
        "the disk is full",
        place=str(folder),
        hint="free some space, or set FARANDOLE_CACHE to a folder on another disk, and run `farandole up` again",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
