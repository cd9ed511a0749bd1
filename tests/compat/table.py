"""The suites, the versions they are pinned to, and every test that is left out, with its reason.

Reads files of pins and provider profiles. A suite is code that we did not write (or a script over such code) in an
environment of its own. It runs once against ``echo`` and once against one real command line. What is left out is a
feature that the product refuses on purpose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from shared.provider import TurnOptions, load

ECHO = "echo"
ROOT = Path(__file__).parents[2]
ENVIRONMENTS = Path(__file__).parent / "environments"
SUITES_FOLDER = Path(__file__).parent / "suites"


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """What the product refuses on purpose, but with providers whose profile publishes it. Some share a name."""

    name: str
    reason: str
    is_published: Callable[[TurnOptions], bool] = lambda _: False


STRUCTURED = Feature(
    name="structured output",
    reason="`response_format` is refused where the command line has no structured output of its own",
    is_published=lambda options: "json_schema" in options.response_formats,
)
JSON_MODE = msgspec.structs.replace(
    STRUCTURED, is_published=lambda options: "json_object" in options.response_formats
)
IMAGES = Feature(
    name="images",
    reason="refused where the command line takes none",
    is_published=lambda options: "image/png" in options.image_types,
)
TOOLS = Feature(
    name="tools",
    reason="a lease completes and does nothing else: tools are refused, and off in the command line itself",
)
MODEL_OVERRIDE = Feature(name="another model", reason="a lease is pinned to one model")
OTHER_PARTS = Feature(name="audio and documents", reason="text and images are all that a message may hold")


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """One suite in one environment."""

    name: str
    title: str
    environment: str | None
    """A file of pins in ``environments``; None for this project's own environment."""
    file: str
    """In ``suites``."""
    packages: tuple[str, ...] = ()
    """Whose versions are shown."""
    options: tuple[str, ...] = ()
    """More for its test runner."""
    real: str | None
    """The command line for the slow lane; None without one."""
    has_supervisor: bool = False
    """Whether it is about a supervisor too, and gets one of its own to do with what it likes."""
    excluded: Mapping[Feature, tuple[str, ...]] = {}
    """Tests that it leaves out, by the feature that they need."""

    def excluded_with(self, provider: str) -> tuple[Feature, ...]:
        """What is left out with that provider."""
        options = load(provider).turn_options
        return tuple(feature for feature in self.excluded if not feature.is_published(options))

    def excluded_tests(self, provider: str) -> frozenset[str]:
        """The names of the tests that are left out with that provider."""
        return frozenset(test for feature in self.excluded_with(provider) for test in self.excluded[feature])

    def left_out(self) -> tuple[str, ...]:
        """The names of the features that are left out in either lane, sorted."""
        providers = (ECHO, self.real) if self.real else (ECHO,)
        return tuple(sorted({each.name for name in providers for each in self.excluded_with(name)}))

    def versions(self) -> tuple[str, ...]:
        """``name version`` of each package that is shown, as pinned."""
        return tuple(f"{name} {pins(self.environment)[name]}" for name in self.packages if self.environment)


def readme_row(suite: Suite, passed: Mapping[str, int]) -> str:
    """What the README says of a suite that passed that many tests with each provider."""
    versions = ", ".join(f"`{name}` {version}" for name, version in map(str.split, suite.versions()))
    left_out = ", ".join(suite.left_out()) or "nothing"
    real = f"{passed.get(suite.real, 0)} ({suite.real})" if suite.real else "-"
    return f"| {suite.title} | {versions or 'of the system'} | {passed.get(ECHO, 0)} | {real} | {left_out} |"


def pins(environment: str) -> dict[str, str]:
    """Package to version, as an environment's file pins them."""
    package_json = ENVIRONMENTS / environment / "package.json"
    if package_json.exists():
        dependencies: dict[str, str] = json.loads(package_json.read_text(encoding="utf-8"))["dependencies"]
        return dependencies
    text = (ENVIRONMENTS / f"{environment}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)$", text, re.MULTILINE))


def _openai(major: int, real: str) -> Suite:
    return Suite(
        name=f"openai-{major}",
        title=f"OpenAI's Python client {major}.x",
        environment=f"openai-{major}",
        file="openai_client.py",
        packages=("openai",),
        real=real,
        excluded={
            STRUCTURED: (
                "test_structured_output_is_made",
                "test_structured_output_is_parsed",
                "test_structured_output_is_streamed",
            ),
            JSON_MODE: ("test_json_mode",),
            IMAGES: ("test_an_image",),
        },
    )


SUITES: tuple[Suite, ...] = (
    _openai(1, "claude"),
    _openai(2, "codex"),
    _openai(3, "gemini"),
    Suite(
        name="langchain",
        title="LangChain's standard tests of a chat model",
        environment="langchain",
        file="langchain_chat.py",
        packages=("langchain-tests", "langchain-openai"),
        real="claude",
        options=("-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session", "--record-mode=all"),
        excluded={
            TOOLS: (
                "test_agent_loop", "test_bind_runnables_as_tools", "test_structured_few_shot_examples",
                "test_structured_output_pydantic_2_v1",  # of such classes it makes tools
                "test_tool_calling", "test_tool_calling_async", "test_tool_calling_with_no_arguments",
                "test_tool_choice", "test_tool_message_error_status",
                "test_tool_message_histories_list_content", "test_tool_message_histories_string_content",
                "test_unicode_tool_call_integration", "test_image_tool_message",
            ),
            MODEL_OVERRIDE: (
                "test_ainvoke_with_model_override", "test_astream_with_model_override",
                "test_invoke_with_model_override", "test_stream_with_model_override",
            ),
            OTHER_PARTS: (
                "test_anthropic_inputs", "test_audio_inputs", "test_pdf_inputs", "test_pdf_tool_message",
            ),
            IMAGES: ("test_image_inputs",),
            STRUCTURED: (
                "test_structured_output", "test_structured_output_async",
                "test_structured_output_optional_param",
            ),
            JSON_MODE: ("test_json_mode",),
        },
    ),
    Suite(
        name="litellm",
        title="LiteLLM as a library",
        environment="litellm",
        file="litellm_client.py",
        packages=("litellm",),
        real="codex",
        excluded={STRUCTURED: ("test_structured_output",)},
    ),
    Suite(
        name="instructor",
        title="instructor",
        environment="instructor",
        file="instructor_client.py",
        packages=("instructor",),
        real="claude",
        excluded={
            STRUCTURED: ("test_json_schema_mode",),
            JSON_MODE: ("test_json_mode", "test_async_json_mode", "test_a_partial_answer_grows"),
        },
    ),
    Suite(
        name="llamaindex",
        title="LlamaIndex's OpenAILike",
        environment="llamaindex",
        file="llamaindex_llm.py",
        packages=("llama-index-llms-openai-like",),
        real="gemini",
        excluded={STRUCTURED: ("test_structured_output",), IMAGES: ("test_an_image",)},
    ),
    Suite(
        name="pydantic-ai",
        title="pydantic-ai's agents",
        environment="pydantic-ai",
        file="pydantic_ai_agent.py",
        packages=("pydantic-ai-slim",),
        real="codex",
        excluded={STRUCTURED: ("test_native_output",), IMAGES: ("test_an_image",)},
    ),
    Suite(
        name="ai-sdk",
        title="Vercel's AI SDK",
        environment="ai-sdk",
        file="ai_sdk.test.mjs",
        packages=("ai", "@ai-sdk/openai-compatible"),
        real="claude",
        excluded={STRUCTURED: ("structured output",), IMAGES: ("an image",)},
    ),
    Suite(
        name="schemathesis",
        title="schemathesis over our OpenAPI documents",
        environment="schemathesis",
        file="schemathesis_api.py",
        packages=("schemathesis",),
        real=None,
        has_supervisor=True,
    ),
    Suite(name="curl", title="`curl -N`", environment=None, file="curl_commands.py", real="gemini"),
)  # fmt: skip
