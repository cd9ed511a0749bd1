"""LangChain's own standard tests of a chat model, over its OpenAI integration pointed at the endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lane import read_lane
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


@pytest.fixture(scope="module")
def vcr_cassette_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Nothing is replayed, and nothing recorded is kept."""
    folder: Path = tmp_path_factory.mktemp("cassettes")
    return str(folder)


class TestChatModel(ChatModelIntegrationTests):
    """What is told to the tests is what the product says of itself; usage is asked for in streams."""

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": read_lane().model, "stream_usage": True, "use_responses_api": False}

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def supports_json_mode(self) -> bool:
        return False

    @property
    def supports_model_override(self) -> bool:
        return False
