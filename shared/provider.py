"""What a provider is: its profile, how its command line is found and started, and what makes its connections.

One file in ``shared/providers`` is one provider; it binds the name ``PROVIDER`` to a :class:`Provider`. Files are
discovered, never registered: :func:`names` lists them, :func:`load` imports one. Everything here is pure. What a
connection does is said in ``shared.sansio``; executables are searched in ``shared.locate``, processes run in
``worker.runner``.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from shared import providers
from shared.contracts import Budget
from shared.errors import ProviderError, RequestError
from shared.sansio import Connection
from shared.versions import VersionRange


class Executable(msgspec.Struct, frozen=True, kw_only=True):
    """Where a command line may be found, in order: variable, PATH names, known places."""

    variable: str
    names: tuple[str, ...]
    known_places: tuple[str, ...] = ()
    install_hint: str = ""
    version_argv: tuple[str, ...] = ("--version",)
    pinned: tuple[str, ...] = ()
    """Used instead of any search when not empty: a program that ships with this project."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """One way to be authenticated with a command line.

    ``variables`` authenticate by being set (any of them), ``files`` by existing below the user's home. When the
    variable ``home_variable`` is set, ``home_variable_files`` below the folder it names count instead of ``files``.
    """

    name: str
    variables: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    home_variable: str = ""
    home_variable_files: tuple[str, ...] = ()
    accepts: Callable[[str], bool] | None = None
    """Looks into the file: whether it really authenticates."""


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """A file made once for each installed version, by ``convert`` from what the command line prints for ``argv``.

    ``convert`` raises ValueError for output it does not understand.
    """

    name: str
    argv: tuple[str, ...]
    convert: Callable[[bytes], bytes]


class UserSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The user's own settings file of a command line, which is read but never passed on as it is.

    ``file`` is below the user's home, or named ``home_variable_file`` in the folder that ``home_variable`` names.
    ``variables`` finds the environment variables that the settings refer to.
    """

    file: str
    home_variable: str
    home_variable_file: str
    variables: Callable[[str], tuple[str, ...]]


class TurnOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line takes with a single turn, warm or not, beside text and system prompt. Published as it is.

    ``response_formats`` are those of OpenAI's ``json_object`` and ``json_schema`` that it makes sure of by itself,
    ``reasoning_efforts`` its levels in OpenAI's words, ``image_types`` the media types of images in a prompt.
    """

    max_tokens: bool = False
    reasoning_efforts: tuple[str, ...] = ()
    response_formats: tuple[str, ...] = ()
    image_types: tuple[str, ...] = ()


class CommandInputs(msgspec.Struct, frozen=True, kw_only=True):
    """All a provider needs to build its command; paths are absolute, ``variables`` already allow-listed.

    ``version`` is None where nobody asked for it; ``prepared`` is the file of the provider's Preparation,
    ``settings`` the text of its UserSettings, "" for none.
    """

    executable: tuple[str, ...]
    model: str
    login: str
    workspace: str
    home: str
    user_home: str
    variables: Mapping[str, str]
    version: str | None = None
    prepared: str = ""
    settings: str = ""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One process to start: argv, its whole environment, its working directory, and what has to be there before.

    ``files`` are written for the owner alone, ``links`` point to files of the user that count as they are. Where the
    file system is locked, the process gets these, its program, the system's libraries, the lease's own folders, and
    what else it needs by its nature: ``reads``, and ``writes``, which it may change.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    files: Mapping[str, str] = {}
    links: Mapping[str, str] = {}
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the values of environment and files: they may be secrets."""
        return f"Command(argv={self.argv!r}, cwd={self.cwd!r}, env={sorted(self.env)!r})"


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One file's worth of knowledge about one command line.

    ``capabilities`` are the profile's capability names; publication is derived from them. ``native_extensions``
    is true where a provider-native agent surface exists (claude, codex); all others are common-surface-only.
    ``published`` is false for ``echo``, which is not one of the four published command lines. ``environment``
    names the only variables of the supervisor's environment that may reach the command line (and ``settings`` may name
    more). ``supported_versions`` were measured with what is written here; others work, and are told apart.
    ``file_variables`` are those of the environment that name a file or folder to be read. ``example_model`` is a cheap
    one, for trying out. ``home_per_process`` gives every process a home of its own instead of the lease's.
    """

    name: str
    title: str
    capabilities: tuple[str, ...]
    native_extensions: bool = False
    published: bool = True
    executable: Executable
    logins: tuple[Login, ...] = ()
    login_hint: str = ""
    environment: tuple[str, ...] = ()
    file_variables: tuple[str, ...] = ()
    supported_versions: VersionRange | None = None
    example_model: str
    streams_whole_messages: bool = False
    preparation: Preparation | None = None
    settings: UserSettings | None = None
    home_per_process: bool = False
    models: tuple[str, ...] = ()
    """The only model ids there are; () where the service behind decides."""
    turn_options: TurnOptions = TurnOptions()
    command: Callable[[CommandInputs], Command]
    connect: Callable[[CommandInputs], Connection]


@functools.cache
def names() -> tuple[str, ...]:
    """Every provider file's name, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(providers.__path__)))


@functools.cache
def load(name: str) -> Provider:
    """The provider of that exact name. Raises RequestError ``unsupported_provider``."""
    if name not in names():
        raise RequestError(
            "unsupported_provider", f"cannot use provider {name!r}: known are {', '.join(names())}"
        )
    provider: Provider = importlib.import_module(f"shared.providers.{name}").PROVIDER
    return provider


def describe_cli(provider: Provider, path: str, version: str | None) -> dict[str, Any]:
    """What descriptors, health and reports say of an installed command line; a program of our own is always right."""
    supported = provider.supported_versions
    return {
        "path": path,
        "version": version,
        "supported_versions": str(supported) if supported else None,
        "is_supported": supported is None or supported.covers(version),
    }


def require_model(provider: Provider, model: str) -> None:
    """Do nothing for a model id that may exist. Raises ProviderError ``model_not_found``."""
    if provider.models and model not in provider.models:
        raise ProviderError(
            "model_not_found",
            f"cannot use model {model!r}: {provider.title} has only {', '.join(provider.models)}",
            should_retry=False,
        )


def require_cost_reports(provider: Provider, budget: Budget | None) -> None:
    """Do nothing unless the budget limits a cost that nobody would report. Raises RequestError."""
    if budget is not None and budget.cost_usd is not None and "cost" not in provider.capabilities:
        raise RequestError(
            "invalid_lease_options",
            f"cannot keep a budget of cost_usd: {provider.title} does not report what a turn costs",
            param="budget.cost_usd",
        )
