"""LangChain's own standard tests of a chat model, over its OpenAI integration pointed at the endpoint."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
from lane import read_lane
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests, chat_models

PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
)


@pytest.fixture(scope="module")
def vcr_cassette_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Nothing is replayed, and nothing recorded is kept."""
    folder: Path = tmp_path_factory.mktemp("cassettes")
    return str(folder)


@pytest.fixture(autouse=True)
def picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture that a test would download, where there is nothing to download from."""
    request = httpx.Request("GET", "http://localhost/")
    answer = httpx.Response(200, content=base64.b64decode(PICTURE), request=request)
    monkeypatch.setattr(chat_models.httpx, "get", lambda *_, **__: answer)


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
        return "json_schema" in read_lane().response_formats

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}

    @property
    def supports_json_mode(self) -> bool:
        return "json_object" in read_lane().response_formats

    @property
    def supports_image_inputs(self) -> bool:
        return bool(read_lane().image_types)

    @property
    def supports_model_override(self) -> bool:
        return False
