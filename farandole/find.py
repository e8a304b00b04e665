"""From the name of a service to its declaration, and to the resources that its steps may ask for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from farandole.declaration import Declaration
from farandole.errors import DeclarationError
from farandole.problem import nearest
from farandole.ready import ready_module
from farandole.signature import imported, resolve
from farandole.sources.inventory import Inventory

SERVICES = "services"
T = TypeVar("T")


def services(root: Path | None = None) -> list[str]:
    """The names of all services: the folders under services/ that declare a pipeline."""
    found = (root or Path.cwd()) / SERVICES
    return sorted({p.parent.name for kind in ("yaml", "py") for p in found.glob(f"*/pipeline.{kind}")})


def inventories(root: Path | None = None) -> list[str]:
    """The names of the sources whose inventory is declared: the folders under services/ with an inventory.py."""
    return sorted(p.parent.name for p in ((root or Path.cwd()) / SERVICES).glob("*/inventory.py"))


def find_inventory(name: str, root: Path | None = None) -> Inventory:
    """The inventory of a source. Raises DeclarationError where its module offers none, or cannot be imported."""
    _importable(root or Path.cwd())
    found = getattr(imported(f"{SERVICES}.{name}.inventory", name), "inventory", None)
    if not isinstance(found, Inventory):
        raise DeclarationError(
            f"{SERVICES}/{name}/inventory.py offers no `inventory`",
            place=f"{SERVICES}/{name}/inventory.py:1",
            hint="inventory = Inventory(EventClass, listed); services/landing/inventory.py is an example",
        )
    return found


def find_declaration(target: str, root: Path | None = None) -> Declaration:
    """The declaration of a service: a folder under services/, or ``module:object``.

    Raises DeclarationError if there is none, if it is written twice, or if it is wrong.
    """
    root = root or Path.cwd()
    _importable(root)
    module_name, colon, name = target.partition(":")
    if colon:
        found: Any = imported(module_name, f"`{target}`")
        for part in name.split("."):
            found = getattr(found, part, None)
        return _declared(found, target)
    return _of_folder(root, target.removesuffix("/").removeprefix(f"{SERVICES}/").replace("-", "_"))


def readable(names: Iterable[str], find: Callable[[str], T]) -> tuple[dict[str, T], dict[str, str]]:
    """What is declared under these names, as far as it can be read, and of each that cannot why; by name."""
    found: dict[str, T] = {}
    wrong: dict[str, str] = {}
    for name in names:
        try:
            found[name] = find(name)
        except DeclarationError as error:
            wrong[name] = str(error)
    return found, wrong


def _importable(root: Path) -> None:
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))  # a command's own path does not hold the folder it was called in


def _of_folder(root: Path, name: str) -> Declaration:
    folder = root / SERVICES / name
    written, coded = folder / "pipeline.yaml", folder / "pipeline.py"
    if written.exists() and coded.exists():
        raise DeclarationError(
            f"{name} is declared twice", place=f"{SERVICES}/{name}", hint="keep pipeline.yaml or pipeline.py, not both"
        )
    if written.exists():
        from farandole.manifest import read_manifest

        return read_manifest(written)
    if not coded.exists():
        raise DeclarationError(
            f"there is no service `{name}`",
            place=f"{SERVICES}/{name}",
            hint=nearest(name, services(root)) or "write its pipeline.yaml or pipeline.py, or name it as module:object",
        )
    module = imported(f"{SERVICES}.{name}.pipeline", name)
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


def find_resources(declaration: Declaration) -> list[Callable[..., Any]]:
    """The functions labelled @resource in the modules that its steps live in, or imported into them.

    A module that cannot be imported has none; the plan of the steps says why.
    """
    found: dict[int, Callable[..., Any]] = {}
    for step in declaration.steps:
        for call in (step.call, step.check, step.use, *(c.call for c in step.catch)):
            with contextlib.suppress(DeclarationError):
                for value in vars(_home(call)).values() if call else ():
                    if hasattr(value, "__resource__") and callable(value):
                        found[id(value)] = value
    return list(found.values())


def _home(call: str) -> ModuleType:
    """The module that a function or a ready-made step lives in."""
    return sys.modules[resolve(call).__module__] if ":" in call else ready_module(call)
