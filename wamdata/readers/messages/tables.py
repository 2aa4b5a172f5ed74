"""Rows of numbers that become streams: of a message's plain fields, and of arrays that go with a list of names."""

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from schemas.episode import Finding, Float32, Int64, Stream
from wamdata.readers.messages.clock import Track, in_order
from wamdata.readers.messages.leaves import MAX_ITEMS, Items, Leaf

MAX_WIDTH = 512
EXACT = 1 << 24  # whole numbers up to here are exact as float32

Shape = tuple[tuple[str, int], ...]  # path, and length of an array or -1


@dataclass
class Rows:
    """Rows of one shape: values one after the other, and which messages they came from."""

    messages: array = field(default_factory=lambda: array("q"))
    values: array = field(default_factory=lambda: array("d"))


@dataclass
class Table:
    """A topic's plain numbers.

    Args:
        big: paths of arrays that are too wide to be a signal.
        whole: paths that hold whole numbers.
        lists: how many messages the lists at these paths held.
    """

    name: str
    track: Track
    shapes: dict[Shape, Rows] = field(default_factory=dict)
    big: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    lists: dict[str, set[int]] = field(default_factory=dict)

    def add(self, message: int, found: list[tuple[str, Leaf]]) -> None:
        """Takes the numbers among a message's leaves."""
        shape, values = [], []
        for path, leaf in found:
            if isinstance(leaf, Items):
                self.lists.setdefault(path, set()).add(int(leaf))
                continue
            if isinstance(leaf, np.ndarray):
                if leaf.size > MAX_WIDTH:
                    self.big.add(path)
                    continue
                shape.append((path, leaf.size))
                values.extend(leaf.astype(np.float64).ravel().tolist())
                is_whole = leaf.dtype.kind in "iu" and leaf.dtype.itemsize > 2
            elif isinstance(leaf, (str, list)):
                continue
            else:
                shape.append((path, -1))
                values.append(float(leaf))
                is_whole = isinstance(leaf, (int, np.integer)) and not isinstance(leaf, bool)
            if is_whole:
                self.whole.add(path)
        if shape:
            rows = self.shapes.setdefault(tuple(shape), Rows())
            rows.messages.append(message)
            rows.values.extend(values)

    def stream(self, t_ns: Int64) -> tuple[Stream | None, list[Finding]]:
        """The stream, None where no field lasted; and what was left out of it.

        Args:
            t_ns: time of each of the topic's messages.
        """
        paths, findings = self._lasting()
        if not paths:
            return None, findings
        messages = np.concatenate([np.array(r.messages, np.int64) for r in self.shapes.values()])
        blocks = np.concatenate([_block(shape, rows, paths) for shape, rows in self.shapes.items()])
        order, doubles = in_order(t_ns[messages], self.name)
        is_array = len(paths) == 1 and min(paths.values()) >= 0  # the log has no names for its columns
        values, columns = blocks[order], () if is_array else _columns(paths)
        lacking = int(np.isnan(values).any(axis=1).sum()) if len(self.shapes) > 1 else 0
        if lacking:
            message = f"topic {self.name}: {lacking} of {len(values)} messages lack a field: NaN there"
            findings.append(Finding("missing_fields", "warning", self.name, message))
        findings += doubles + self._rounded(values, paths)
        return Stream(self.name, t_ns[messages][order], to_float32(values), columns), findings

    def _lasting(self) -> tuple[dict[str, int], list[Finding]]:
        """Paths whose length never changes, in order."""
        sizes: dict[str, set[int]] = {}
        for shape in self.shapes:
            for path, size in shape:
                sizes.setdefault(path, set()).add(size)
        uneven = {p for p, lengths in self.lists.items() if len(lengths) > 1 or max(lengths) > MAX_ITEMS}
        inside = {p for p in sizes if any(p.startswith(f"{at}.") for at in uneven)}
        changing = sorted({*self.big, *uneven, *(p for p, found in sizes.items() if len(found) > 1)})
        lasting = {p: min(found) for p, found in sizes.items() if p not in changing and p not in inside}
        wide = sum(abs(s) for s in lasting.values()) > 2 * MAX_WIDTH
        changing, lasting = (sorted(sizes), {}) if wide else (changing, lasting)
        if not changing:
            return lasting, []
        message = (
            f"topic {self.name}: {', '.join(changing[:3])}{' and more' if len(changing) > 3 else ''} "
            f"changes its length or holds over {MAX_WIDTH} numbers: left out"
        )
        return lasting, [Finding("no_signal", "info", self.name, message)]

    def _rounded(self, values: np.ndarray, paths: dict[str, int]) -> list[Finding]:
        at = 0
        for path, size in paths.items():
            width = abs(size)
            if path in self.whole and (np.abs(np.nan_to_num(values[:, at : at + width])) > EXACT).any():
                message = f"topic {self.name}: {path} holds whole numbers above 2^24, rounded in float32"
                return [Finding("rounded_numbers", "warning", self.name, message)]
            at += width
        return []


@dataclass
class Named:
    """An array that goes with a list of names, as joint states do; names may come in any order."""

    name: str
    track: Track
    orders: dict[tuple[str, ...], Rows] = field(default_factory=dict)

    def add(self, message: int, names: list[str], values: np.ndarray) -> None:
        rows = self.orders.setdefault(tuple(names), Rows())
        rows.messages.append(message)
        rows.values.extend(values.astype(np.float64).tolist())

    def stream(self, t_ns: Int64) -> tuple[Stream | None, list[Finding]]:
        """The stream of the names that most messages have, in the order of the first of these messages."""
        counts: Counter[frozenset[str]] = Counter()
        for names, rows in self.orders.items():
            counts[frozenset(names)] += len(rows.messages)
        most = max(counts, key=lambda names: counts[names])
        taken = {names: rows for names, rows in self.orders.items() if frozenset(names) == most}
        columns = min(taken, key=lambda names: taken[names].messages[0])
        messages = np.concatenate([np.array(r.messages, np.int64) for r in taken.values()])
        values = np.concatenate(
            [
                np.array(rows.values).reshape(len(rows.messages), -1)[:, [names.index(c) for c in columns]]
                for names, rows in taken.items()
            ]
        )
        order, findings = in_order(t_ns[messages], self.name)
        lost = sum(counts.values()) - counts[most]
        if lost:
            message = f"topic {self.name}: {lost} of {lost + counts[most]} messages name other joints: left out"
            findings.append(Finding("other_names", "warning", self.name, message))
        return Stream(self.name, t_ns[messages][order], to_float32(values[order]), columns), findings


def to_float32(values: np.ndarray) -> Float32:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def _block(shape: Shape, rows: Rows, paths: dict[str, int]) -> np.ndarray:
    """(N, width of all paths) values of rows of one shape; NaN where it lacks a path."""
    values = np.array(rows.values).reshape(len(rows.messages), -1)
    starts, at = {}, 0
    for path, size in shape:
        starts[path] = at
        at += abs(size)
    block = np.full((len(values), sum(abs(s) for s in paths.values())), np.nan)
    at = 0
    for path, size in paths.items():
        if path in starts:
            block[:, at : at + abs(size)] = values[:, starts[path] : starts[path] + abs(size)]
        at += abs(size)
    return block


def _columns(paths: dict[str, int]) -> tuple[str, ...]:
    """Names of the columns, less what all paths begin with."""
    names = [p if size < 0 else f"{p}.{i}" for p, size in paths.items() for i in range(abs(size))]
    parts = [p.split(".") for p in paths]
    while all(len(p) > 1 for p in parts) and len({p[0] for p in parts}) == 1:
        cut = len(parts[0][0]) + 1
        parts, names = [p[1:] for p in parts], [n[cut:] for n in names]
    return tuple(names)
