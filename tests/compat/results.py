"""What a suite reported, and whether that is all of it. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable

import msgspec


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One suite against one provider. ``failed`` has the names of tests, and whatever else went wrong."""

    suite: str
    versions: tuple[str, ...]
    provider: str
    passed: int = 0
    excluded: int = 0
    failed: tuple[str, ...] = ()
    elapsed_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether it ran and everything in it passed."""
        return bool(self.passed) and not self.failed


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The tests of one run by how they ended."""

    passed: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[str, ...]


def read_junit(text: str) -> Report:
    """A report in JUnit's XML, as pytest and node write it. Raises ElementTree.ParseError."""
    ended: dict[str, list[str]] = {"passed": [], "skipped": [], "failed": []}
    for case in ElementTree.fromstring(text).iter("testcase"):  # our own test runner wrote it
        tags = {child.tag for child in case}
        kind = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        ended[kind].append(case.get("name", ""))
    return Report(**{kind: tuple(names) for kind, names in ended.items()})


def missing(report: Report, excluded: Iterable[str]) -> list[str]:
    """What is wrong with a report beside its failures: tests skipped without a reason, reasons without a test."""
    left_out = set(excluded)
    skipped = {name.partition("[")[0] for name in report.skipped}
    wrong = [f"{name}: skipped, and not in the table of exclusions" for name in sorted(skipped - left_out)]
    wrong += [f"{name}: excluded, and not there or not skipped" for name in sorted(left_out - skipped)]
    if not report.passed:
        wrong.append("no test passed")
    return wrong


def table(outcomes: Iterable[Outcome]) -> str:
    """All outcomes as one Markdown table."""
    rows = [("suite", "version", "provider", "passed", "excluded", "failed", "seconds")]
    rows += [
        (
            each.suite,
            ", ".join(each.versions),
            each.provider,
            str(each.passed),
            str(each.excluded),
            str(len(each.failed)),
            f"{each.elapsed_s:.0f}",
        )
        for each in outcomes
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
