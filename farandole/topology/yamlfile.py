"""A YAML file that remembers its lines, so that a mistake in it is told with its place."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from farandole.errors import DeclarationError
from farandole.problem import nearest

Keys = tuple[str, ...]


class YamlFile:
    """A mapping read from a file. Raises DeclarationError, with file and line, for what is no YAML mapping."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[Keys, int] = {}
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise DeclarationError(
                "the file is missing", place=str(path), hint="the repository's own topology/ shows what it holds"
            ) from None
        except (OSError, UnicodeDecodeError) as e:
            raise DeclarationError(f"the file cannot be read: {e}", place=str(path)) from e
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            self.content: Any = yaml.safe_load(text) if node is not None else {}
        except yaml.MarkedYAMLError as e:
            line = e.problem_mark.line + 1 if e.problem_mark else 1
            raise DeclarationError(
                f"malformed YAML: {e.problem}",
                place=f"{path}:{line}",
                hint="check the indentation and the quotes there",
            ) from e
        if not isinstance(self.content, dict):
            raise DeclarationError("this is no mapping", place=f"{path}:1", hint="write `name: value` lines")
        self._remember((), node)

    def place(self, *keys: str) -> str:
        """``file:line`` of a key, or of the nearest key above it that is written."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self._lines:
                return f"{self.path}:{self._lines[keys[:length]]}"
        return f"{self.path}:1"

    def mapping(self, *keys: str, allowed: Collection[str] = ()) -> dict[str, Any]:
        """The mapping under these keys, empty if there is none; other names than the `allowed` are refused."""
        found: Any = self.content
        for key in keys:
            found = (found or {}).get(key)
        found = found or {}
        if not isinstance(found, dict):
            raise self.wrong(f"`{'.'.join(keys)}` is no mapping", *keys, hint="write `name: value` lines under it")
        for name in found:
            if allowed and name not in allowed:
                hint = nearest(str(name), allowed) or f"it takes {', '.join(sorted(allowed))}"
                raise self.wrong(f"unknown key `{name}`", *keys, str(name), hint=hint)
        return found

    def wrong(self, message: str, *keys: str, hint: str = "") -> DeclarationError:
        """The error that says this of the place of these keys."""
        return DeclarationError(message, place=self.place(*keys), hint=hint)

    def _remember(self, above: Keys, node: yaml.Node | None) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                keys = (*above, str(key.value))
                self._lines[keys] = key.start_mark.line + 1
                self._remember(keys, value)
