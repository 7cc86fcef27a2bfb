"""A table's header: which column fills each field of the request, file by file."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from tasks.domain.cells import EmptyCells, visible
from tasks.domain.constants import has_constant, is_fixed
from tasks.domain.errors import ContentError
from tasks.domain.mapping import LEAF_TYPES, Field, Mapping, Path, Schema, column_index, walk, with_indexes
from tasks.domain.service import BatchService

HEADERS_KEPT = 64
"""Headers whose mappings are cached: files of one service mostly have the same."""
SHOWN = 5
"""Names that a message lists."""
_AROUND = re.compile("^[\\s\ufeff\u200b-\u200f\u2060]+|[\\s\ufeff\u200b-\u200f\u2060]+$")


class FileMapping(NamedTuple):
    """How the rows of one file become requests, and notes for the user on how its header was read."""

    mapping: Mapping
    notes: tuple[str, ...]


class TableMapping:
    """A service's mapping rule, for files with or without a header.

    With a header, a leaf whose name is in it takes that column, unless the rule was given (not ``generated``) and has
    an index for the leaf. Leaves of the same name are distinguished by the names of the fields around them, as in
    ``a.x``. A leaf of a generated rule whose name is not in the header keeps its index.
    """

    def __init__(self, rule: Schema, *, header: bool = False, generated: bool = True,
                 empty_cells: EmptyCells = "refuse") -> None:  # fmt: skip
        self.header = header
        self._generated = generated
        self._empty_cells: EmptyCells = empty_cells
        self.by_place = Mapping(rule, empty_cells)
        """The mapping of a file without a header."""
        self._leaves = [(path, node.get("index")) for path, node, kind in walk(rule) if kind in LEAF_TYPES]
        fixed = [is_fixed(node) and node.get("index") is None for _, node, kind in walk(rule) if kind in LEAF_TYPES]
        self._open = [
            (generated or index is None) and not one for (_, index), one in zip(self._leaves, fixed, strict=True)
        ]
        """For each leaf, whether a header may choose its column."""
        defaults = {path for path, node, _ in walk(rule) if has_constant(node)}
        self._defaults = defaults
        """Leaves that are sent with their default if no column has their name."""
        self.named_only = [Field(path, "", -1).name for (path, index), may in zip(self._leaves, self._open, strict=True)
                           if header and may and index is None and path not in defaults]  # fmt: skip
        """Leaves that are in a request only if a file's header has their names."""
        self._kept: dict[tuple[str, ...], FileMapping] = {}

    @classmethod
    def of_service(cls, service: BatchService, rule: Schema) -> TableMapping:
        """The mapping of a service with this rule, given or generated."""
        return cls(
            rule, header=service.csv_header == "present", generated=service.mapping is None,
            empty_cells=service.empty_cells,
        )  # fmt: skip

    def of(self, names: Sequence[str]) -> FileMapping:
        """The mapping of a file whose header has these names (empty: the header cannot be read).

        Raises ContentError if the column of a leaf cannot be determined.
        """
        if not self.header or not any(self._open):
            return FileMapping(self.by_place, ())
        if not names:
            raise ContentError("the header cannot be read: a cell with quotes should stand in quotes, without blanks.")
        key = tuple(names)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= HEADERS_KEPT:
                self._kept.clear()
            found = self._kept[key] = self._read([_AROUND.sub("", name) for name in names])
        return found

    def _read(self, header: Sequence[str]) -> FileMapping:
        columns: dict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(header):
            columns[name].append(place)
        leaves = [path for (path, _), may in zip(self._leaves, self._open, strict=True) if may]
        bearers = Counter(name for path in leaves for name in _names(path))
        chosen = {path: column for path in leaves if (column := _column(path, bearers, columns)) is not None}
        if not chosen and self._generated:
            note = (
                f"no column of the header ({_list(header)}) has the name of a field: columns are taken by their places"
            )
            return FileMapping(self.by_place, (note,))
        taken = {column: path for path, column in chosen.items()}
        notes: list[str] = []
        indexes: list[int | None] = []
        for (path, given), may in zip(self._leaves, self._open, strict=True):
            index: int | None = chosen.get(path) if may else column_index(given)
            if may and index is None:
                index, note = self._without_name(path, given, taken, header, bearers)
                notes.append(note)
            indexes.append(index)
        rule = with_indexes(self.by_place.rule, iter(indexes))
        return FileMapping(Mapping(rule, self._empty_cells), tuple(filter(None, notes)))

    def _without_name(
        self, path: Path, given: object, taken: dict[int, Path], header: Sequence[str], bearers: Counter[str]
    ) -> tuple[int | None, str]:
        """The column of a leaf whose name is not in the header, and a note for the user."""
        if path in self._defaults:
            return None, ""
        field = Field(path, "", -1).name
        own = _names(path)[-1] if _names(path) else ""
        why = "has no column of its name in the header"
        if bearers[own] > 1 and own in header:
            why = f"is one of {bearers[own]} fields with the name {visible(own)}"
        index = column_index(given)
        if index is None:
            return None, f"field {field} {why}, and is left out"
        if index in taken:
            other = Field(taken[index], "", -1).name
            raise ContentError(
                f"field {field} {why} ({_list(header)}), and the column at its place, {index}, is that of field "
                f"{other}: name its column in the header, or give its index in mapping."
            )
        name = f", {visible(header[index])}" if index < len(header) else ""
        return index, f"field {field} {why}: it takes the column at its place, {index}{name}"


def _names(path: Path) -> list[str]:
    """The names of a leaf that a header may have, longest first: ``a.b.x``, ``b.x``, ``x``."""
    parts = [part for part in path if isinstance(part, str)]
    return [".".join(parts[start:]) for start in range(len(parts))]


def _column(path: Path, bearers: Counter[str], columns: dict[str, list[int]]) -> int | None:
    """The column with a name that only this leaf has. Raises ContentError if several columns have it."""
    for name in _names(path):
        if bearers[name] != 1 or name not in columns:
            continue
        if len(columns[name]) > 1:
            places = " and ".join(map(str, columns[name][:SHOWN]))
            raise ContentError(
                f"the header has the name {visible(name)} more than once (columns {places}, counted from 0): give the "
                f"index of field {Field(path, '', -1).name} in mapping."
            )
        return columns[name][0]
    return None


def _list(header: Sequence[str]) -> str:
    more = f" and {len(header) - SHOWN} more" if len(header) > SHOWN else ""
    return ", ".join(map(visible, header[:SHOWN])) + more
