"""The one table: rows of measurement, program, figure, ratio and aim, as Markdown made for a terminal too."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = ("measured", "program", "figure", "beside ours", "aim")
US = "Infoscreen"


@dataclass(frozen=True, slots=True)
class Row:
    measured: str
    program: str
    figure: str
    beside: str = ""
    """The ratio to ours."""
    aim: str = ""


def render(rows: Sequence[Row]) -> str:
    cells = [COLUMNS, *((row.measured, row.program, row.figure, row.beside, row.aim) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def percentile(values: Sequence[float], percent: int) -> float:
    """By rank, without interpolation: a value that was measured. Raises ValueError without values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("nothing was measured")
    return ordered[min(len(ordered) - 1, -(-len(ordered) * percent // 100) - 1)]


def verdict(aim: str, *, met: bool) -> str:
    return f"{aim}: {'met' if met else 'MISSED'}"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
