"""A stub of amp: prints the lines that are documented or were recorded of the real one, standard library only.

Answers one turn with ``echo: `` and the user's text, as one whole message. Markers in the text steer it:

``[[argv]]`` and ``[[settings]]`` answer with the arguments and with the settings file that they name; ``[[tool]]`` asks for
a tool; ``[[hang]]`` says nothing more after the start of the turn, ``[[stall]]`` nothing after its message;
``[[error:TEXT]]`` fails the turn with exit code 0, ``[[dies:TEXT]]`` says so on stderr alone; ``[[prints:TEXT]]`` prints a
line of its own and goes on waiting.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

FOREVER_S = 600.0


def put(**line: object) -> None:
    """Print one JSON line."""
    print(json.dumps(line), flush=True)


def value_of(marker: str, text: str) -> str | None:
    """What stands in that marker."""
    found = re.search(r"\[\[" + marker + r":(.*?)\]\]", text)
    return found[1] if found else None


def main() -> None:
    """One turn."""
    text = json.loads(sys.stdin.readline())["message"]["content"][0]["text"]
    if cause := value_of("dies", text):
        sys.exit(cause)
    put(type="system", subtype="init", cwd=os.getcwd(), session_id="T-1", tools=["Bash"], agent_mode="medium")
    put(type="user", message={"role": "user", "content": [{"type": "text", "text": text}]}, session_id="T-1")
    if line := value_of("prints", text):
        print(line, flush=True)
        time.sleep(FOREVER_S)
    if cause := value_of("error", text):
        put(type="result", subtype="error_during_execution", is_error=True, num_turns=0, error=cause)
        return
    if "[[hang]]" in text:
        time.sleep(FOREVER_S)
    answer(text)


def answer(text: str) -> None:
    """The message, and the end."""
    if "[[argv]]" in text:
        text = " ".join(sys.argv[1:])
    if "[[settings]]" in text:
        with open(sys.argv[sys.argv.index("--settings-file") + 1], encoding="utf-8") as settings:
            text = settings.read()
    content: list[object] = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "echo: " + text},
    ]
    if "[[tool]]" in text:
        content.append({"type": "tool_use", "id": "TU-1", "name": "shell_command", "input": {}})
    usage = {"input_tokens": 11, "output_tokens": 7, "cache_read_input_tokens": 3}
    message = {
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": "end_turn",
        "usage": usage,
    }
    put(type="assistant", message=message, session_id="T-1")
    if "[[tool]]" in text or "[[stall]]" in text:
        time.sleep(FOREVER_S)
    put(type="result", subtype="success", duration_ms=1, is_error=False, num_turns=1, result="echo: " + text)


if __name__ == "__main__":
    main()
