"""Two leases share nothing: each has its own processes, port, folder and token, and outlives the other."""

from __future__ import annotations

import httpx

from supervisor import EndpointDescriptor, InferenceEndpoint

TIMEOUT_S = 60.0


def ask(descriptor: EndpointDescriptor, headers: dict[str, str]) -> httpx.Response:
    """One completion of ``descriptor`` with whoever's headers."""
    return httpx.post(
        f"{descriptor.base_url}/chat/completions",
        headers=headers,
        json={"messages": [{"role": "user", "content": "hello"}]},
        timeout=TIMEOUT_S,
        trust_env=False,
    )


def main() -> None:
    """Lease two, cross their tokens, release one, use the other."""
    with InferenceEndpoint() as endpoint:
        first, _ = endpoint.ensure_endpoint({"model_preference": {"provider": "echo", "id": "one"}})
        second, _ = endpoint.ensure_endpoint({"model_preference": {"provider": "echo", "id": "two"}})
        for descriptor in (first, second):
            pids = [process.pid for process in endpoint.endpoint(descriptor).processes]
            print(f"{descriptor.model_identity}: {descriptor.base_url} processes {pids}")

        print("own token:", ask(first, first.headers).status_code)
        print("the other's token:", ask(first, second.headers).status_code)

        proof = endpoint.release_endpoint(first).proof
        print("first released, survivors:", len(proof.survivors) if proof else "unknown")
        print("second still answers:", ask(second, second.headers).json()["choices"][0]["message"]["content"])
        endpoint.release_endpoint(second)


if __name__ == "__main__":
    main()
