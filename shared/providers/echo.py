"""The embedded provider: always available, needs no login, answers with the user's own text for any model name.

It speaks the claude wire format, so that it goes through the same connection, pool, runner and locks as a real
command line. It is the default of the demo and of the fast tests and is not one of the published command lines.
"""

from __future__ import annotations

import sys
from pathlib import Path

import shared.echo_cli
from shared.claude_wire.connection import ClaudeConnection
from shared.provider import Command, CommandInputs, Executable, Provider, TurnOptions

MISBEHAVE_VARIABLE = "ASM_ENDPOINT_ECHO_MISBEHAVE"


def _command(inputs: CommandInputs) -> Command:
    flags = ("--misbehave",) if inputs.variables.get(MISBEHAVE_VARIABLE) == "1" else ()
    return Command(
        argv=(*inputs.executable, "--model", inputs.model, *flags),
        env={"HOME": inputs.home},
        cwd=inputs.workspace,
        reads=(*inputs.executable[-1:], sys.base_prefix, f"{sys.prefix}/pyvenv.cfg"),
    )


PROVIDER = Provider(
    name="echo",
    title="Echo",
    capabilities=("cost", "interrupt", "streaming"),
    published=False,
    example_model="any",
    executable=Executable(
        variable="",
        names=(),
        pinned=(sys.executable, "-I", "-S", str(Path(shared.echo_cli.__file__).resolve())),
    ),
    environment=(MISBEHAVE_VARIABLE,),
    turn_options=TurnOptions(max_tokens=True, response_formats=("json_object", "json_schema")),
    command=_command,
    connect=lambda _inputs: ClaudeConnection(),
)
