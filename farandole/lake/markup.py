"""XML of any declared shape as rows: records by path, columns by XPath, repeating groups as tables of their own.

Entities stay unresolved, no network is reached, and a document type declaration is refused: nothing in a
file makes this process read another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
from lxml import etree

from farandole.lake.outcome import BadRows
from farandole.lake.rows import BATCH, Findings, typed
from farandole.sources.metadata import Shape, Source


class _Table:
    """Rows of one shape, gathered as text until a batch is full."""

    def __init__(self, name: str, shape: Shape, namespaces: dict[str, str]) -> None:
        self.name, self.shape, self.row = name, shape, 1
        self.paths = {
            column: etree.XPath(spec.path, namespaces=namespaces or None) for column, spec in shape.columns.items()
        }
        self.values: list[list[str | None]] = []

    def take(self, element: Any, nulls: frozenset[str], findings: Findings) -> None:
        """Read one row; a path that gives several values is a finding."""
        row: list[str | None] = []
        for column, path in self.paths.items():
            text, many = _text(path(element))
            if many:
                findings.add(self.row + len(self.values), column, f"{path.path} gives {many} values, not one")
            row.append(None if text in nulls else text)
        self.values.append(row)

    def batch(self, findings: Findings) -> tuple[str, pa.RecordBatch, Sequence[int]]:
        """The rows gathered so far, typed; the next row follows them."""
        columns = list(zip(*self.values, strict=True)) or [()] * len(self.paths)
        texts = pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in columns], names=list(self.paths))
        numbers = range(self.row, self.row + len(self.values))
        self.row, self.values = numbers.stop, []
        return self.name, typed(texts, self.shape, numbers, findings), numbers


def read_markup(
    source: Source, handle: IO[bytes], findings: Findings
) -> Iterator[tuple[str, pa.RecordBatch, Sequence[int]]]:
    """The rows of an XML file, table by table; memory holds one record and one batch. Raises BadRows."""
    main = _Table(source.table, source, source.namespaces)
    children = [
        (etree.XPath(child.path, namespaces=source.namespaces or None), _Table(name, child, source.namespaces))
        for name, child in source.children.items()
    ]
    tables = [main, *(table for _, table in children)]
    nulls = frozenset(source.nulls)
    try:
        for element in _records(source, handle):
            main.take(element, nulls, findings)
            for path, table in children:
                for group in path(element):
                    table.take(group, nulls, findings)
            for table in tables:
                if len(table.values) >= BATCH:
                    yield table.batch(findings)
    except etree.XMLSyntaxError as error:
        raise BadRows(f"this is no well-formed XML: {error}") from error
    for table in tables:
        yield table.batch(findings)


def _records(source: Source, handle: IO[bytes]) -> Iterator[Any]:
    tags = [_tag(step, source.namespaces) for step in source.record.split("/")]
    context = etree.iterparse(
        handle, events=("start", "end"), resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    stack: list[str] = []
    for event, element in context:
        if event == "start":
            if not stack and element.getroottree().docinfo.doctype:
                raise BadRows(
                    "it carries a document type declaration, which is refused: it could make us read elsewhere"
                )
            stack.append(element.tag)
            continue
        if stack == tags:
            yield element
            element.clear(keep_tail=False)
        stack.pop()
        if len(stack) < len(tags):  # at a record or above it: what came before is never looked at again
            while element.getprevious() is not None:
                del element.getparent()[0]


def _tag(step: str, namespaces: dict[str, str]) -> str:
    prefix, colon, name = step.rpartition(":")
    return f"{{{namespaces[prefix]}}}{name}" if colon else name


def _text(found: Any) -> tuple[str | None, int]:
    """What an XPath gave, as text; and how many it gave, if that was more than one."""
    if isinstance(found, list):
        if len(found) > 1:
            return None, len(found)
        if not found:
            return None, 0
        found = found[0]
    if isinstance(found, float):  # XPath numbers, such as count(...)
        return f"{found:g}", 0
    text = found if isinstance(found, str) else "".join(found.itertext())
    return str(text).strip(), 0
