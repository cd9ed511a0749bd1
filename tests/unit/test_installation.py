"""What a program consists of, so that it can be allowed to a process that may read nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.installation import MAX_INTERPRETERS, program_files


def script(path: Path, first_line: str) -> Path:
    """An executable text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first_line}\nthe rest\n")
    path.chmod(0o755)
    return path


def files(path: Path, search_path: str = "") -> list[str]:
    """All of them."""
    return list(program_files(str(path), search_path))


def test_a_program_is_the_file_it_links_to(tmp_path: Path):
    """Not the folder beside it, which may be anybody's."""
    program = script(tmp_path / "versions" / "1.2.3", "\x7fELF")
    link = tmp_path / "bin" / "thing"
    link.parent.mkdir()
    link.symlink_to(program)
    assert files(link) == [str(program)]


@pytest.mark.parametrize(
    "inside", ["node_modules/thing/cli.js", "node_modules/.store/thing@1/node_modules/thing/cli.js"]
)
def test_a_node_program_is_the_outermost_folder_of_its_packages(tmp_path: Path, inside: str):
    """Whichever way they were installed."""
    program = script(tmp_path / "lib" / inside, "\x7fELF")
    assert files(program) == [str(tmp_path / "lib" / "node_modules")]


@pytest.mark.parametrize(
    "first_line",
    ["#!/usr/bin/env node", "#! /usr/bin/env -S node --no-warnings", "#!/bin/env NAME=value node"],
)
def test_a_script_needs_what_env_would_find(tmp_path: Path, first_line: str):
    """On the command line's own search path."""
    node = script(tmp_path / "node" / "bin" / "node", "\x7fELF")
    program = script(tmp_path / "cli.js", first_line)
    assert files(program, f"/nowhere:{node.parent}") == [str(program), str(node)]
    assert files(program, "/nowhere") == [str(program)]


def test_a_script_needs_the_interpreter_that_it_names(tmp_path: Path):
    """And if that one is a script, its interpreter too; a circle ends."""
    node = script(tmp_path / "node", "\x7fELF")
    shim = script(tmp_path / "shim", f"#!{node} --flag")
    program = script(tmp_path / "cli.js", f"#!{shim}")
    assert files(program) == [str(program), str(shim), str(node)]
    circle = script(tmp_path / "circle", f"#!{tmp_path}/circle")
    assert files(circle) == [str(circle)] * MAX_INTERPRETERS


@pytest.mark.parametrize("first_line", ["#!", "#!/usr/bin/env", "", "#!/nonexistent/interpreter"])
def test_what_names_no_interpreter_needs_none(tmp_path: Path, first_line: str):
    """It will fail by itself, and say so."""
    program = script(tmp_path / "odd", first_line)
    assert files(program) == [str(program)]


def test_what_is_not_there_is_only_its_name(tmp_path: Path):
    """Starting it says the rest."""
    assert files(tmp_path / "missing") == [str(tmp_path / "missing")]
