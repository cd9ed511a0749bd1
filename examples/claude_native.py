"""Claude's own agent SDK beside a lease: same command line, login and model, and a hook that sees every tool use.

Needs ``pip install 'asm-endpoint[claude-sdk]'``. The lease only completes; what is native happens in this program.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from supervisor import InferenceEndpoint
from worker.bridges import claude
from worker.inputs import private_inputs


async def ask(model: str, message: str) -> None:
    """One question to the SDK's client; a hook denies every tool use and tells of it."""
    from claude_agent_sdk import AssistantMessage, HookMatcher, ResultMessage, TextBlock

    async def deny(tool_use: Any, tool_use_id: str | None, context: Any) -> dict[str, Any]:
        print(f"hook: denied {tool_use['tool_name']}")
        decision = {"hookEventName": "PreToolUse", "permissionDecision": "deny"}
        return {"hookSpecificOutput": {**decision, "permissionDecisionReason": "an example"}}

    native = {"tools": ["Bash"], "max_turns": 2, "hooks": {"PreToolUse": [HookMatcher(hooks=[deny])]}}
    async with (
        private_inputs("claude", model=model) as inputs,
        claude.start_client(
            inputs, system_prompt="Answer in one sentence.", native_overrides=native
        ) as client,
    ):
        await client.query(message)
        async for answer in client.receive_response():
            if isinstance(answer, AssistantMessage):
                for block in answer.content:
                    if isinstance(block, TextBlock):
                        print(f"native: {block.text}")
            elif isinstance(answer, ResultMessage):
                print(f"native result: {answer.subtype}")


def main() -> None:
    """Lease an endpoint, and use the SDK with what the lease is pinned to."""
    parser = argparse.ArgumentParser(description="Use Claude's agent SDK beside a lease.")
    parser.add_argument("--model", default="sonnet")
    parser.add_argument("--message", default="Say hello to the world")
    options = parser.parse_args()
    with InferenceEndpoint() as endpoint:
        request = {"model_preference": {"provider": "claude", "id": options.model}}
        descriptor, _ = endpoint.ensure_endpoint(request)
        try:
            print(f"leased: {descriptor.provider_identity} {descriptor.model_identity}")
            asyncio.run(ask(descriptor.model_identity, options.message))
        finally:
            endpoint.release_endpoint(descriptor)


if __name__ == "__main__":
    main()
