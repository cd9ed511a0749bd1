"""Lease an endpoint, talk to it over plain HTTP, and release it whatever happens.

    python examples/inference_endpoint_http.py --provider claude --model sonnet --message "Say hello" --stream

Without arguments it uses the embedded echo provider, which needs no login.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import httpx

from supervisor import EndpointDescriptor, InferenceEndpoint

TIMEOUT_S = 600.0
SUMMARY = ("endpoint_id", "lease_ref", "base_url", "provider_identity", "model_identity", "protocol")


def complete(descriptor: EndpointDescriptor, message: str) -> str:
    """The whole answer."""
    response = httpx.post(
        f"{descriptor.base_url}/chat/completions",
        headers=descriptor.headers,
        json={"messages": [{"role": "user", "content": message}]},
        timeout=TIMEOUT_S,
        trust_env=False,
    )
    answer = response.json()
    if response.is_error:
        raise SystemExit(f"{response.status_code} {answer['error']['code']}: {answer['error']['message']}")
    text: str = answer["choices"][0]["message"]["content"]
    return text


def stream(descriptor: EndpointDescriptor, message: str) -> Iterator[str]:
    """The answer's pieces as they come."""
    request = {"messages": [{"role": "user", "content": message}], "stream": True}
    with httpx.stream(
        "POST",
        f"{descriptor.base_url}/chat/completions",
        headers=descriptor.headers,
        json=request,
        timeout=TIMEOUT_S,
        trust_env=False,
    ) as response:
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise SystemExit(f"{event['error']['code']}: {event['error']['message']}")
            for choice in event["choices"]:
                yield choice["delta"].get("content") or ""


def main() -> None:
    """Lease, show, ask, release."""
    parser = argparse.ArgumentParser(description="Lease an endpoint and talk to it over HTTP.")
    parser.add_argument("--provider", default="echo")
    parser.add_argument("--model", default="any")
    parser.add_argument("--message", default="Say hello to the world")
    parser.add_argument("--stream", action="store_true")
    options = parser.parse_args()

    with InferenceEndpoint() as endpoint:
        descriptor, compatibility = endpoint.ensure_endpoint(
            {
                "model_preference": {"provider": options.provider, "id": options.model},
                "stream?": options.stream,
            }
        )
        try:
            for name in SUMMARY:
                print(f"{name}: {getattr(descriptor, name)}")
            print(f"compatibility: {compatibility.reason}")
            print("authorization: Bearer <redacted>\n")
            if options.stream:
                for piece in stream(descriptor, options.message):
                    print(piece, end="", flush=True)
                print()
            else:
                print(complete(descriptor, options.message))
        finally:
            proof = endpoint.release_endpoint(descriptor).proof
            if proof:
                print(f"\nreleased: {len(proof.processes)} processes ended, {len(proof.survivors)} survivors")


if __name__ == "__main__":
    main()
