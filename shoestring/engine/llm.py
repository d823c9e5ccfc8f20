"""LLM: one model behind vLLM's offline API: generate, chat, and stream.

Names, arguments and results are vLLM's. What differs, and why:

| Name | Here | Reason |
|---|---|---|
| LLM(device) | an argument | one package serves every device |
| LLM(speculation, num_speculative_tokens, adaptive_speculation) | no speculative_config | for --set |
| LLM(kv_cache_memory_bytes) | no gpu_memory_utilization | other programs use the memory too |
| LLM.stream, LLM.of, LLM.counters | additional | text as it comes, parts from elsewhere, no metrics service |
| prompts | text never becomes a special token | a user's text cannot forge a turn; give ids, or use chat |
| SamplingParams(seed) | without one it derives from the LLM's seed | the same calls give the same texts |
| SamplingParams(output_kind) | "cumulative", "delta" or "final_only" | set by generate and stream |
| SamplingParams(skip_special_tokens) | leaves <think> tags in the text | they separate the answer |
| SamplingParams(logprobs) | at most 20 | -1, all of them, would be megabytes per token |
| StructuredOutputsParams(tools, tool_choice, after_token_id) | additional | tool calls; thinking is free |
| CompletionOutput.token_logprobs | additional | trainers need plain numbers |
| CompletionOutput.finished | a property | a forgotten call would always be true |
| RequestOutput.metrics | arrival_s, first_token_s, last_token_s, and drafts | units are part of names |

Arguments of vLLM that are not here, such as tensor_parallel_size, lora_request or bad_words, raise an error.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Self

from shoestring.config import build
from shoestring.device import choose
from shoestring.engine.dispatch import Dispatcher, OutputStream
from shoestring.engine.engine import Engine
from shoestring.engine.load import default_sampling, load_engine
from shoestring.engine.request import OutputKind, Request, RequestOutput, SamplingParams, derived_seed
from shoestring.engine.settings import EngineCounters, EngineSettings
from shoestring.errors import ConfigError, TokenizerError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.model.memory import Quantization
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.load import template_of
from shoestring.tokenizer.chat.messages import Message
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.prompts import (
    ChatOptions,
    Conversation,
    Prompt,
    PromptInput,
    is_conversation,
    read_chat,
    read_prompts,
)

Params = SamplingParams | Sequence[SamplingParams] | None


class LLM:
    """One model in this process. Not thread-safe."""

    def __init__(
        self,
        model: str | Path,
        *,
        tokenizer: str | Path | None = None,
        quantization: Quantization | None = None,
        device: str = "auto",
        seed: int | None = 0,
        max_model_len: int | None = None,
        max_num_seqs: int = EngineSettings.max_num_seqs,
        **settings: Any,
    ) -> None:
        """Load a folder, `org/name` or `org/name@revision`; raises ShoestringError if that is impossible.

        Args:
            tokenizer: a folder with tokenizer.json, if not the model's; it may hold the chat template.
            quantization: None (as stored), "int8" or "int4"; packed checkpoints need none.
            device: "auto", or PyTorch's name of a device.
            seed: for requests without one: the same calls in the same order give equal texts. None: random.
            max_model_len, max_num_seqs, settings: the fields of EngineSettings, such as
                max_num_batched_tokens, enable_prefix_caching, kv_cache_memory_bytes and speculation.
        """
        settings = {
            "max_model_len": max_model_len,
            "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": max(EngineSettings.max_num_batched_tokens, max_num_seqs),
            **settings,
        }
        engine_settings = build(EngineSettings, settings, where="LLM")
        checkpoint = Checkpoint.open(resolve(str(model)))
        source = checkpoint if tokenizer is None else Checkpoint.open(resolve(str(tokenizer)))
        engine = load_engine(
            checkpoint,
            choose(device),
            tokenizer=None if tokenizer is None else source.tokenizer,
            quantization=quantization,
            settings=engine_settings,
        )
        self._begin(engine, source, default_sampling(checkpoint), seed)

    @classmethod
    def of(
        cls,
        engine: Engine,
        checkpoint: Checkpoint | None = None,
        *,
        sampling: Mapping[str, Any] | None = None,
        seed: int | None = 0,
    ) -> Self:
        """An LLM around an engine; `checkpoint` has the chat template, `sampling` are the defaults."""
        self = cls.__new__(cls)
        self._begin(engine, checkpoint, sampling or {}, seed)
        return self

    def _begin(
        self, engine: Engine, checkpoint: Checkpoint | None, sampling: Mapping[str, Any], seed: int | None
    ) -> None:
        self.engine, self.tokenizer = engine, engine.tokenizer
        self._checkpoint, self.default_sampling, self._seed = checkpoint, dict(sampling), seed
        self._numbers = count()
        self.dispatcher = Dispatcher(engine)

    def generate(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        sampling_params: Params = None,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Complete one prompt or many; results in their order. `use_tqdm` shows progress on a terminal.

        Raises ConfigError for a prompt that cannot be served, before any of them runs. Ctrl-C aborts them.
        """
        return self._complete(read_prompts(prompts, self.tokenizer), sampling_params, use_tqdm)

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: Params = None,
        use_tqdm: bool = True,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Message] | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Complete the next turn of one conversation or of many, by the chat template; see ChatOptions.

        `chat_template` is a Jinja text, or a file with one, to use instead of the model's.
        """
        options = ChatOptions(
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            chat_template_kwargs=chat_template_kwargs,
        )
        is_one = is_conversation(messages) or not messages
        conversations: Any = [messages] if is_one else messages
        template = (
            self.template if chat_template is None else template_of(chat_template, self.get_tokenizer())
        )
        prompts = [self._chat(conversation, options, template) for conversation in conversations]
        return self._complete(prompts, sampling_params, use_tqdm)

    def stream(
        self,
        prompt: PromptInput | Conversation,
        sampling_params: SamplingParams | None = None,
        *,
        tools: Sequence[Message] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> OutputStream:
        """Iterate over the new text and tokens of one prompt or conversation; `close` aborts it."""
        if is_conversation(prompt):
            options = ChatOptions(tools=tools, chat_template_kwargs=chat_template_kwargs)
            prompts = [self._chat(prompt, options, self.template)]
        elif tools or chat_template_kwargs:
            raise ConfigError("tools and chat_template_kwargs go with a conversation, not with a prompt")
        else:
            prompts = read_prompts(prompt, self.tokenizer)
        if len(prompts) != 1:
            raise ConfigError(f"stream takes one prompt, not {len(prompts)}; generate takes many")
        return self.dispatcher.outputs(self._requests(prompts, sampling_params, "delta"))

    def get_tokenizer(self) -> Tokenizer:
        """The tokenizer; ConfigError for a model without one."""
        if self.tokenizer is None:
            raise ConfigError("this model has no tokenizer; it takes and gives token ids")
        return self.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """The sampling of calls without sampling_params, from the checkpoint's generation_config.json."""
        return SamplingParams(**self.default_sampling)

    @property
    def counters(self) -> EngineCounters:
        """The engine's totals so far."""
        return self.engine.counters

    @property
    def template(self) -> Template:
        """The chat template; TokenizerError when the model has none."""
        if self._checkpoint is None:
            raise TokenizerError("this LLM was made without a checkpoint, so it has no chat template")
        self.get_tokenizer()  # refuses a model without one
        return self._checkpoint.template

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template; an invalid one is an error when it is used."""
        return self._checkpoint is not None and self.tokenizer is not None and self._checkpoint.has_template

    def _chat(self, messages: Conversation, options: ChatOptions, template: Template) -> Prompt:
        return read_chat(messages, self.get_tokenizer(), template, options)

    def _complete(self, prompts: list[Prompt], params: Params, show: bool) -> list[RequestOutput]:
        requests = self._requests(prompts, params, "final_only")
        outputs: dict[str, RequestOutput] = {}
        with _progress(len(requests), show) as advance, self.dispatcher.outputs(requests) as stream:
            for output in stream:
                outputs[output.request_id] = output
                advance()
        return [outputs[request.request_id] for request in requests]

    def _requests(self, prompts: list[Prompt], params: Params, kind: OutputKind) -> list[Request]:
        """One request for each prompt, with its seed; the engine checks them."""
        if params is None:
            params = self.get_default_sampling_params()
        if isinstance(params, SamplingParams):
            params = [params] * len(prompts)
        if len(params) != len(prompts):
            raise ConfigError(
                f"{len(params)} sampling_params for {len(prompts)} prompts; give one, or one each"
            )
        requests = []
        for prompt, own in zip(prompts, params, strict=True):
            number = next(self._numbers)
            request = Request(
                request_id=str(number),
                prompt_token_ids=prompt.token_ids,
                sampling_params=replace(own, output_kind=kind, seed=self._seed_of(own, number)),
                prompt=prompt.text,
                cache_salt=prompt.cache_salt,
            )
            requests.append(request)
        return requests

    def _seed_of(self, params: SamplingParams, number: int) -> int | None:
        if params.seed is not None or self._seed is None:
            return params.seed
        return derived_seed(self._seed, number)


@contextmanager
def _progress(total: int, show: bool) -> Iterator[Any]:
    """A progress bar on stderr if that is a terminal; yields a function to call after each request."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(stderr=True)
    is_hidden = not (show and console.is_terminal)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=is_hidden, transient=True) as progress:
        task = progress.add_task("requests", total=total)
        yield lambda: progress.advance(task)
