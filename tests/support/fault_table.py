"""The table that `make faults` ends with: each kind of fault, how often it was tried, and how often it was survived.

A test of the marker `faults(KIND)` is one try. Those that try more, such as fuzzers, record the property `tried`:
kind -> [tries, survived].
"""

from collections import defaultdict

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    if marker := item.get_closest_marker("faults"):
        item.user_properties.append(("fault", marker.args[0]))


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter", config: pytest.Config) -> None:
    if "faults" not in config.option.markexpr:
        return
    table: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            properties = dict(report.user_properties)
            kind, survived = properties.get("fault", "other"), outcome == "passed"
            for name, counts in properties.get("tried", {kind: [1, int(survived)]}).items():
                table[name] = [total + count for total, count in zip(table[name], counts, strict=True)]
    width = max(map(len, table), default=0)
    terminalreporter.section("faults")
    for name, (tries, survived) in sorted(table.items()):
        terminalreporter.write_line(f"| {name:{width}} | {tries:7} | {survived:7} |")
