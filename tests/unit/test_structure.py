"""The architecture, enforced: who may import whom, what a worker loads, and that a provider is one file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import extensions, provider, providers

ROOT = Path(__file__).parents[2]
FORBIDDEN = {"shared": {"supervisor", "worker"}, "worker": {"supervisor"}, "supervisor": {"worker"}}
TIMEOUT_S = 60
HEAVY = ("httpx", "openai", "prometheus_client", "psutil", "pytest", "ssl.match_hostname")


def sources(package: str) -> Iterator[tuple[Path, ast.Module]]:
    """Every module of a package, parsed."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def imported_packages(tree: ast.Module) -> set[str]:
    """The top-level packages a module imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_downwards_only(package: str):
    """shared <- worker, shared <- supervisor, and nothing across."""
    for path, tree in sources(package):
        assert not imported_packages(tree) & FORBIDDEN[package], path


def test_the_core_knows_no_native_sdk():
    """Only a bridge imports an SDK, and nothing of ours imports a bridge."""
    sdks = {each.module for each in extensions.extensions()}
    for package in FORBIDDEN:
        for path, tree in sources(package):
            if path.parent.name != "bridges":
                assert not imported_packages(tree) & sdks, path
                imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
                assert not [node for node in imports if "bridges" in ast.unparse(node)], path


def test_no_code_asks_which_provider_it_is():
    """Nothing compares with a provider's name outside that provider's own file."""
    names = set(provider.names())
    for package in FORBIDDEN:
        for path, tree in sources(package):
            for node in ast.walk(tree):
                if isinstance(node, ast.Compare) and path.stem not in names:
                    constants = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                    assert not {value for value in constants if isinstance(value, str)} & names, path


def test_a_zygote_loads_only_what_workers_need():
    """No HTTP client, no psutil, nothing of the supervisor, even after the rehearsal."""
    code = (
        "import sys, worker.zygote, worker.rehearsal; worker.rehearsal.rehearse();"
        f"print([name for name in sys.modules if name.split('.')[0] in {('supervisor', *HEAVY)!r}])"
    )
    ran = subprocess.run(
        (sys.executable, "-P", "-c", code), capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_a_supervisor_loads_no_worker_and_no_http_client():
    """What serves does not need what asks."""
    code = (
        "import sys, supervisor.serve;"
        "print([name for name in sys.modules if name.split('.')[0] in ('worker', 'httpx', 'openai')])"
    )
    ran = subprocess.run(
        (sys.executable, "-P", "-c", code), capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_a_provider_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Dropped beside the others it is there, with no registry to edit."""
    (tmp_path / "fifth.py").write_text(
        "from shared.claude_wire.connection import ClaudeConnection\n"
        "from shared.provider import Command, Executable, Provider\n"
        "PROVIDER = Provider(name='fifth', title='Fifth', example_model='any', capabilities=('streaming',),\n"
        "    executable=Executable(variable='FIFTH_PATH', names=('fifth',)),\n"
        "    command=lambda inputs: Command(argv=inputs.executable, env={}, cwd=inputs.workspace),\n"
        "    connect=lambda inputs: ClaudeConnection())\n"
    )
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(tmp_path)])
    provider.names.cache_clear()
    try:
        assert "fifth" in provider.names()
        assert provider.load("fifth").title == "Fifth"
    finally:
        provider.names.cache_clear()
        provider.load.cache_clear()
        sys.modules.pop("shared.providers.fifth", None)


@pytest.mark.parametrize("name", provider.names())
def test_every_provider_is_named_like_its_file(name: str):
    """And says how to get what it needs."""
    loaded = provider.load(name)
    assert loaded.name == name
    assert loaded.executable.pinned or loaded.executable.install_hint
    assert not loaded.logins or loaded.login_hint
