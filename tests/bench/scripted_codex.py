"""A command line that speaks ``codex app-server`` and answers every turn at once: a scripted model service's equal.

Started by path with ``-I -S``, standard library only. Nothing is measured of the model or of codex with it, only of
what stands before them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

MODEL = "scripted"
ANSWER = "pong"
VERSION = "codex-cli 0.169.0"
USAGE = {"inputTokens": 1, "cachedInputTokens": 0, "outputTokens": 1, "reasoningOutputTokens": 0}


def main(argv: list[str]) -> None:
    """Serve turns from stdin until it closes, or say what is asked of a codex before."""
    if argv == ["--version"]:
        print(VERSION)
    elif argv[:1] == ["debug"]:
        print(json.dumps({"models": []}))
    else:
        for line in sys.stdin.buffer:
            replies = b"".join(json.dumps(each).encode() + b"\n" for each in replies_to(json.loads(line)))
            sys.stdout.buffer.write(replies)
            sys.stdout.buffer.flush()


def replies_to(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The answer to a request of the client, and the whole turn after it starts."""
    number, method = message.get("id"), message.get("method")
    if number is None:
        return
    if method == "thread/start":
        yield {"id": number, "result": {"thread": {"id": f"thread-{number}"}}}
    elif method == "turn/start":
        thread, turn = message["params"]["threadId"], f"turn-{number}"
        yield {"id": number, "result": {"turn": {"id": turn}}}
        yield notification("item/agentMessage/delta", thread, delta=ANSWER)
        yield notification("item/completed", thread, item={"type": "agentMessage", "text": ANSWER})
        yield notification("thread/tokenUsage/updated", thread, tokenUsage={"last": USAGE})
        yield notification("turn/completed", thread, turn={"id": turn, "status": "completed"})
    else:
        yield {"id": number, "result": {}}


def notification(method: str, thread: str, **params: Any) -> dict[str, Any]:
    """What happens in a thread."""
    return {"method": method, "params": {"threadId": thread, **params}}


if __name__ == "__main__":
    main(sys.argv[1:])
