"""The matrix as a table of text: faults in rows, moments in columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from faults.matrix import MATRIX, Cell, Fault, Impossible, Moment, Way

Filled = Collection[tuple[Fault, Moment, Way]]
LEGEND = (
    "A cell: the session's end reason, else Reader.State/Session.State, then how it was driven and"
    " held: S simulated, R real parts, ! not (it failed, or was left out)."
)


def table(filled: Filled) -> Iterator[str]:
    """Its lines, for what was driven in this run."""
    reasons: list[str] = []
    rows = [["", *Moment]]
    for fault in Fault:
        cells = (_text(fault, moment, MATRIX[fault][moment], filled, reasons) for moment in Moment)
        rows.append([fault.value, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (each.ljust(width) for each, width in zip(row, widths, strict=True))
        yield " | ".join(padded).rstrip()
    yield LEGEND
    yield from (f"{number}. {why}" for number, why in enumerate(reasons, 1))
    for way in Way:
        held = sum(each[2] is way for each in filled)
        yield f"{way.name.lower()}: {held} cells driven and held"


def _text(fault: Fault, moment: Moment, cell: Cell, filled: Filled, reasons: list[str]) -> str:
    if isinstance(cell, Impossible):
        if cell.why not in reasons:
            reasons.append(cell.why)
        return f"- {reasons.index(cell.why) + 1}"
    ways = (way for way in Way if way in cell.ways)
    held = "".join(way if (fault, moment, way) in filled else "!" for way in ways)
    return f"{cell.summary} {held}"
