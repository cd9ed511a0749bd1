"""Codex's own SDK beside a lease: same command line, login and model, and a thread with two turns.

Needs ``pip install 'asm-endpoint[codex-sdk]'``. The lease only completes; what is native happens in this program.
"""

from __future__ import annotations

import argparse
import asyncio

from supervisor import InferenceEndpoint
from worker.bridges import codex
from worker.inputs import private_inputs


async def ask(model: str, message: str) -> None:
    """Two turns of one thread, which remembers the first one."""
    async with private_inputs("codex", model=model) as inputs, codex.connect_app_server(inputs) as server:
        options = codex.thread_options(inputs, system_prompt="Answer in one sentence.")
        thread = await server.thread_start(**options)
        for text in (message, f"Again: {message}"):
            result = await thread.run(text)
            print(f"native: {result.final_response}")


def main() -> None:
    """Lease an endpoint, and use the SDK with what the lease is pinned to."""
    parser = argparse.ArgumentParser(description="Use Codex's SDK beside a lease.")
    parser.add_argument("--model", default="gpt-5.5")
    parser.add_argument("--message", default="Say hello to the world")
    options = parser.parse_args()
    with InferenceEndpoint() as endpoint:
        request = {"model_preference": {"provider": "codex", "id": options.model}}
        descriptor, _ = endpoint.ensure_endpoint(request)
        try:
            print(f"leased: {descriptor.provider_identity} {descriptor.model_identity}")
            asyncio.run(ask(descriptor.model_identity, options.message))
        finally:
            endpoint.release_endpoint(descriptor)


if __name__ == "__main__":
    main()
