"""Figures: what tests measure on their way, in one place at the end for whoever quotes it."""

from collections.abc import Callable
from typing import Any

import pytest

from parts.figures import Figure


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Notes a figure, by name, for the end of the run."""
    return record_property


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What the tests measured in the booted systems, in one place for whoever quotes it."""
    figures = [
        f"{name}: {value}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
    ]
    if figures:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))
