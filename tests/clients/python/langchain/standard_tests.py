"""LangChain's standard tests through four of its clients; SHOESTRING_ROOT is the root URL of the server."""

import os

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

ROOT = os.environ["SHOESTRING_ROOT"]
LIMITS = {"max_tokens": 400, "max_retries": 0, "temperature": 0}


class StandardTests(ChatModelIntegrationTests):
    @property
    def supports_json_mode(self):
        return True


class TestChatOpenAI(StandardTests):
    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {"model": "mini", "base_url": f"{ROOT}/v1", "api_key": "none", "stream_usage": True, **LIMITS}


class TestChatOpenAIResponses(TestChatOpenAI):
    @property
    def chat_model_params(self):
        return {**super().chat_model_params, "use_responses_api": True}


class TestChatAnthropic(ChatModelIntegrationTests):
    @property
    def chat_model_class(self):
        return ChatAnthropic

    @property
    def chat_model_params(self):
        return {"model": "claude-sonnet-4-5", "base_url": ROOT, "api_key": "none", **LIMITS}


class TestChatDeepSeek(StandardTests):
    @property
    def chat_model_class(self):
        return ChatDeepSeek

    @property
    def chat_model_params(self):
        return {"model": "deepseek-chat", "api_base": ROOT, "api_key": "none", **LIMITS}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
