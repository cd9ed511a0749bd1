"""The table of suites, the pins and the README say the same, and a report with something missing is not good."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.compat.results import Outcome, missing, read_junit, table
from tests.compat.table import ENVIRONMENTS, ROOT, SUITES, SUITES_FOLDER, Suite, pins, readme_row

README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = re.compile(r"://|--(?:extra-)?index-url|--find-links|@ ", re.IGNORECASE)
JUNIT = """<testsuites><testsuite><testcase name="a"/><testcase name="b[x]"><skipped/></testcase>
<testcase name="c"><failure/></testcase><testcase name="d"><error/></testcase></testsuite></testsuites>"""


def pin_files() -> list[Path]:
    """Every file of pins."""
    return sorted([*ENVIRONMENTS.glob("*.txt"), *ENVIRONMENTS.glob("*/package.json")])


@pytest.mark.parametrize("path", pin_files(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_pins_are_exact_and_name_no_address(path: Path):
    """Each line is a package and one version; where it comes from is the installer's business."""
    text = path.read_text(encoding="utf-8")
    assert not ADDRESS.search(text)
    if path.suffix == ".txt":
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert all(re.fullmatch(r"[\w.-]+(?:\[[\w,-]+\])?==[\w.!+]+", line) for line in lines)
    else:
        assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in pins(path.parent.name).values())


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_a_suite_is_all_there(suite: Suite):
    """Its file, its pins, and its row in the README but for the counts."""
    assert (SUITES_FOLDER / suite.file).is_file()
    assert "| 0 " not in line_of(suite)
    assert re.sub(r"(\| )[1-9]\d*\b", r"\g<1>0", line_of(suite)) == readme_row(suite, {})


def line_of(suite: Suite) -> str:
    """The README's row about a suite."""
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {suite.title} |")]
    return line


def test_reasons_are_given_in_the_readme():
    """Word for word, one for each feature that anything leaves out."""
    readme = " ".join(README.split())
    for feature in {feature for suite in SUITES for feature in suite.excluded}:
        assert f"{feature.name}: {feature.reason}" in readme


def test_a_report():
    """Cases by how they ended."""
    report = read_junit(JUNIT)
    assert (report.passed, report.skipped, report.failed) == (("a",), ("b[x]",), ("c", "d"))
    assert not missing(report, {"b"})


@pytest.mark.parametrize(
    ("excluded", "words"), [((), "not in the table"), (("b", "z"), "z: excluded, and not there")]
)
def test_a_skip_needs_a_reason_and_a_reason_a_skip(excluded: tuple[str, ...], words: str):
    """In both directions."""
    (wrong,) = missing(read_junit(JUNIT), excluded)
    assert words in wrong


def test_a_run_without_a_test_is_not_good():
    """Nor is one with a failure."""
    assert missing(read_junit("<testsuites/>"), ()) == ["no test passed"]
    run = Outcome(suite="s", versions=("p 1",), provider="echo", passed=1, excluded=2)
    assert run.is_good
    assert not Outcome(suite="s", versions=(), provider="echo").is_good
    assert not Outcome(suite="s", versions=(), provider="echo", passed=1, failed=("a",)).is_good
    assert "| s     | p 1     | echo     | 1      | 2        | 0      |" in table([run])
