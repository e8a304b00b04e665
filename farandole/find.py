"""From the name of a service to its declaration, and to the resources that its steps may ask for."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from farandole.declaration import Declaration
from farandole.errors import DeclarationError
from farandole.problem import nearest, place
from farandole.ready import ready_module
from farandole.signature import resolve

SERVICES = "services"


def services(root: Path | None = None) -> list[str]:
    """The names of all services: the folders under services/ that declare a pipeline."""
    found = (root or Path.cwd()) / SERVICES
    return sorted({p.parent.name for kind in ("yaml", "py") for p in found.glob(f"*/pipeline.{kind}")})


def find_declaration(target: str, root: Path | None = None) -> Declaration:
    """The declaration of a service: a folder under services/, or ``module:object``.

    Raises DeclarationError if there is none, if it is written twice, or if it is wrong.
    """
    root = root or Path.cwd()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))  # a command's own path does not hold the folder it was called in
    module_name, colon, name = target.partition(":")
    if colon:
        found: Any = _imported(module_name)
        for part in name.split("."):
            found = getattr(found, part, None)
        return _declared(found, target)
    return _of_folder(root, target.removesuffix("/").removeprefix(f"{SERVICES}/").replace("-", "_"))


def _of_folder(root: Path, name: str) -> Declaration:
    folder = root / SERVICES / name
    written, coded = folder / "pipeline.yaml", folder / "pipeline.py"
    if written.exists() and coded.exists():
        raise DeclarationError(
            f"{name} is declared twice", place=f"{SERVICES}/{name}", hint="keep pipeline.yaml or pipeline.py, not both"
        )
    if written.exists():
        from farandole.manifest import read_manifest  # noqa: PLC0415 - a Python pipeline needs no YAML

        return read_manifest(written)
    if not coded.exists():
        raise DeclarationError(
            f"there is no service `{name}`",
            place=f"{SERVICES}/{name}",
            hint=nearest(name, services(root)) or "write its pipeline.yaml or pipeline.py, or name it as module:object",
        )
    module = _imported(f"{SERVICES}.{name}.pipeline")
    own = [o for o in vars(module).values() if getattr(o, "__module__", "") == module.__name__]
    declared = list({id(o): o for o in own if isinstance(getattr(o, "declaration", None), Declaration)}.values())
    if len(declared) != 1:
        raise DeclarationError(
            f"{SERVICES}/{name}/pipeline.py declares {len(declared) or 'no'} pipelines, and needs one",
            place=f"{SERVICES}/{name}/pipeline.py:1",
            hint="one folder, one pipeline; a module with several is named as module:object",
        )
    return _declared(declared[0], name)


def _declared(found: Any, target: str) -> Declaration:
    declaration = found if isinstance(found, Declaration) else getattr(found, "declaration", None)
    if not isinstance(declaration, Declaration):
        raise DeclarationError(
            f"`{target}` is no pipeline", hint="name a class derived from Pipeline or a function labelled @pipeline"
        )
    return declaration


def _imported(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except DeclarationError:
        raise
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        at = place(frames[-1].filename, frames[-1].lineno or 1) if frames else ""
        if isinstance(error, SyntaxError) and error.filename:
            at = place(error.filename, error.lineno or 1)
        raise DeclarationError(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}",
            place=at if "farandole/find.py" not in at else "",
            hint=f"python -c 'import {module_name}' shows the whole traceback",
        ) from error


def find_resources(declaration: Declaration) -> list[Callable[..., Any]]:
    """The functions labelled @resource in the modules that its steps live in, or imported into them."""
    found: dict[int, Callable[..., Any]] = {}
    for module in _modules(declaration):
        for value in vars(module).values():
            if hasattr(value, "__resource__") and callable(value):
                found[id(value)] = value
    return list(found.values())


def _modules(declaration: Declaration) -> Iterator[ModuleType]:
    for step in declaration.steps:
        if step.use:
            yield ready_module(step.use, place=step.place)
        for reference in (step.call, step.check, *(c.call for c in step.catch)):
            if reference and ":" not in reference:
                yield ready_module(reference, place=step.place)
            elif reference:
                yield sys.modules[resolve(reference, place=step.place).__module__]
