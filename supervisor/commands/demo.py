"""``demo``: one lease from beginning to proven end, on an embedded supervisor."""

from __future__ import annotations

import argparse

from shared import provider
from shared.contracts import EndpointDescriptor
from shared.errors import RequestError
from supervisor import console
from supervisor.commands import wording
from supervisor.commands.options import Parsers, add_parser, request

ANY_MODEL = "any"
"""The embedded provider answers to every name."""


def add_parsers(parsers: Parsers) -> None:
    """Add ``demo``."""
    parser = add_parser(parsers, "demo", demo, "lease, complete, stream and release, all by itself")
    parser.add_argument("--provider", default="echo", help="default: %(default)s, which needs no login")
    parser.add_argument("--model", help="needed for every provider but echo, e.g. sonnet")
    parser.add_argument("--message", default="Say hello to the world", help="default: %(default)s")
    parser.set_defaults(stream=True)


def demo(options: argparse.Namespace) -> int:
    """Show what a lease is; it is released whatever happens."""
    from supervisor.embedded import InferenceEndpoint

    options.model = options.model or _default_model(options.provider)
    with console.progress("starting a supervisor ..."):
        endpoint = InferenceEndpoint()
    with endpoint:
        with console.progress(f"leasing {options.provider} {options.model} ..."):
            descriptor, _ = endpoint.ensure_endpoint(request(options))
        try:
            _show(descriptor, options.message)
        finally:
            with console.progress("releasing ..."):
                released = endpoint.release_endpoint(descriptor)
            print(wording.proof_line(descriptor.lease_ref, released))
    return 0


def _default_model(name: str) -> str:
    if provider.load(name).published:
        raise RequestError(
            "missing_model_identity",
            f"cannot lease {name}: name one of its models with --model",
            param="model",
        )
    return ANY_MODEL


def _show(descriptor: EndpointDescriptor, message: str) -> None:
    from supervisor.commands.chat import Chat

    console.print_fields({**wording.summary(descriptor), "token": "<redacted>"})
    with Chat(descriptor) as chat:
        print("\ncompletion:", flush=True)
        with console.progress("waiting for the answer ..."):
            answer = chat.complete(message)
        print(answer)
        print("\nstreamed completion:", flush=True)
        for piece in chat.stream(message):
            print(piece, end="", flush=True)
        print("\n")
