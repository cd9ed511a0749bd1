"""The codes that programs may branch on, as the README promises them."""

from __future__ import annotations

import re
from pathlib import Path

from shared.errors import KINDS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<status>[45]\d\d) \| (?P<codes>`.*`) \|$", re.MULTILINE)


def test_the_readme_lists_every_code_with_its_status():
    """No more and no less than there are, none of them twice."""
    listed = [(code, int(row["status"])) for row in ROW.finditer(README) for code in row["codes"].split(", ")]
    assert sorted(listed) == sorted((f"`{code}`", kind.status) for code, kind in KINDS.items())
