"""``query`` and ``stream`` as plain library calls, without HTTP and without a supervisor.

They are what the HTTP routes run on: the same command line, the same events, the same projection.
"""

from __future__ import annotations

import argparse
import asyncio

from shared.events import Thinking
from shared.sansio import Prompt
from worker.session import open_session, query, stream


async def talk(provider: str, model: str, message: str) -> None:
    """One answer whole, one in pieces."""
    async with open_session(provider, model=model) as session:
        completion = await query(session, Prompt(text=message, system="Answer in one sentence."))
        print(f"query: {completion.text} ({completion.finish_reason})")

        print("stream:", end=" ")
        async with stream(session, message) as turn:
            async for piece in turn:
                if not isinstance(piece, Thinking):
                    print(piece.content, end="", flush=True)
        print(f"\nusage: {turn.completion.usage}")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description="Use a command line as a library.")
    parser.add_argument("--provider", default="echo")
    parser.add_argument("--model", default="any")
    parser.add_argument("--message", default="Say hello to the world")
    options = parser.parse_args()
    asyncio.run(talk(options.provider, options.model, options.message))


if __name__ == "__main__":
    main()
