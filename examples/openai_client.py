"""The official ``openai`` client on a leased endpoint: a completion, and a stream with its usage."""

from __future__ import annotations

import argparse

from openai import OpenAI

from supervisor import InferenceEndpoint


def main() -> None:
    """Lease, complete, stream, release."""
    parser = argparse.ArgumentParser(description="Use a leased endpoint with the official client.")
    parser.add_argument("--provider", default="echo")
    parser.add_argument("--model", default="any")
    parser.add_argument("--message", default="Say hello to the world")
    options = parser.parse_args()

    with InferenceEndpoint() as endpoint:
        request = {"model_preference": {"provider": options.provider, "id": options.model}, "stream?": True}
        descriptor, _ = endpoint.ensure_endpoint(request)
        token = descriptor.headers["authorization"].removeprefix("Bearer ")
        with OpenAI(base_url=descriptor.base_url, api_key=token) as client:
            answer = client.chat.completions.create(
                model=options.model, messages=[{"role": "user", "content": options.message}]
            )
            print("completion:", answer.choices[0].message.content)

            print("stream:", end=" ")
            for chunk in client.chat.completions.create(
                model=options.model,
                messages=[{"role": "user", "content": options.message}],
                stream=True,
                stream_options={"include_usage": True},
            ):
                for choice in chunk.choices:
                    print(choice.delta.content or "", end="", flush=True)
                if chunk.usage:
                    print(f"\nusage: {chunk.usage.prompt_tokens} + {chunk.usage.completion_tokens} tokens")
        endpoint.release_endpoint(descriptor)


if __name__ == "__main__":
    main()
