"""YAML read as a person wrote it: every value with its line and column, and nothing guessed.

Plain scalars follow YAML 1.2: only ``true`` and ``false`` are truth values. What YAML 1.1 takes for one
(``on``, ``no``, ``y``) is refused, because the next reader of the file may be an older parser.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from farandole.problem import Mistakes, Problem, nearest, place

_GUESSED = frozenset({"on", "off", "yes", "no", "y", "n"})
_INT, _FLOAT = re.compile(r"[-+]?\d+"), re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?")
_DEEPEST = 20


class Reader:
    """Reads the nodes of one file, and collects every problem on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []

    def root(self) -> yaml.Node | None:
        """The document; None for an empty file. Raises Mistakes for what is no YAML."""
        try:
            return yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            raise Mistakes(
                [Problem(self.at(None), f"it cannot be read: {error.strerror}", "check its path")]
            ) from error
        except UnicodeDecodeError as error:
            raise Mistakes([Problem(self.at(None), f"it is not UTF-8: {error.reason}", "save it as UTF-8")]) from error
        except yaml.MarkedYAMLError as error:
            what = " ".join(filter(None, (error.problem, error.context)))
            hint = "check the indentation and the quotes there; a value that holds `: ` or ` #` needs quotes"
            raise Mistakes([Problem(self.at(error), f"it is no YAML: {what}", hint)]) from error
        except yaml.YAMLError as error:
            raise Mistakes([Problem(self.at(None), f"it is no YAML: {error}", "remove what cannot be seen")]) from error

    def at(self, node: yaml.Node | yaml.MarkedYAMLError | None) -> str:
        """``file:line:column`` of a node."""
        mark = node.problem_mark if isinstance(node, yaml.MarkedYAMLError) else node and node.start_mark
        start = place(str(self.path), mark.line + 1 if mark else 1)
        return f"{start}:{mark.column + 1}" if mark else start

    def wrong(self, node: yaml.Node | None, message: str, hint: str) -> None:
        """Note a problem at a node."""
        self.problems.append(Problem(self.at(node), message, hint))

    def mapping(self, node: yaml.Node | None, title: str, known: Collection[str] = ()) -> dict[str, yaml.Node]:
        """The values of a mapping by key; keys that are unknown, doubled or guessed are noted and left out."""
        if not isinstance(node, yaml.MappingNode):
            if node is not None:
                self.wrong(
                    node, f"{title} is no mapping", f"write key: value, with {', '.join(known) or 'names'} as keys"
                )
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            word = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not isinstance(key, yaml.ScalarNode) or (key.style is None and word.lower() in _GUESSED):
                hint = f'quote it if it is a name: "{word}"' if word else "write a word"
                self.wrong(key, f"`{word}` cannot be a key of {title}: YAML 1.1 reads it as true or false", hint)
            elif word in found:
                self.wrong(key, f"`{word}` stands twice in {title}", "keep one")
            elif known and word not in known:
                self.wrong(
                    key, f"{title} has an unknown key `{word}`", nearest(word, known) or f"known: {', '.join(known)}"
                )
            else:
                found[word] = value
        return found

    def items(self, node: yaml.Node | None, title: str) -> list[yaml.Node]:
        """The items of a list."""
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        if node is not None:
            self.wrong(node, f"{title} is no list", "write one item a line, each after a dash")
        return []

    def text(self, node: yaml.Node | None, title: str, default: str = "") -> str:
        """The text of a scalar, as written."""
        if node is None:
            return default
        if not isinstance(node, yaml.ScalarNode):
            self.wrong(node, f"{title} is no text", "write one value")
            return default
        if node.style is None and node.value.lower() in _GUESSED:
            self.wrong(node, f"{title}: `{node.value}` is true or false in YAML 1.1", f'quote it: "{node.value}"')
        return str(node.value).strip()

    def texts(self, node: yaml.Node | None, title: str) -> tuple[str, ...]:
        """One text, or a list of them."""
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.text(item, title) for item in node.value)
        return () if node is None else (self.text(node, title),)

    def whole(self, node: yaml.Node | None, title: str, default: int) -> int:
        """A whole number."""
        if node is None:
            return default
        written = self.text(node, title)
        if not _INT.fullmatch(written):
            self.wrong(node, f"{title} is {written!r}, no whole number", f"write it like {default}")
            return default
        return int(written)

    def value(self, node: yaml.Node, title: str, depth: int = 0) -> Any:
        """Any value: texts, numbers, true, false, null, lists and mappings of them."""
        if depth > _DEEPEST:
            self.wrong(node, f"{title} goes deeper than {_DEEPEST}", "write it flat; an anchor may not hold itself")
            return None
        if isinstance(node, yaml.MappingNode):
            return {k: self.value(v, f"{title}.{k}", depth + 1) for k, v in self.mapping(node, title).items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, title, depth + 1) for item in node.value]
        return self._scalar(node, title)

    def _scalar(self, node: yaml.Node, title: str) -> Any:
        written = self.text(node, title)
        if getattr(node, "style", None) is not None:
            return node.value
        if written in ("", "~", "null"):
            return None
        if written in ("true", "false"):
            return written == "true"
        if _INT.fullmatch(written):
            return int(written)
        return float(written) if _FLOAT.fullmatch(written) else written
