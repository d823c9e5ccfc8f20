"""LLM: a model and its engine behind vLLM's offline API: generate, chat, stream."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Self

from shoestring.device import choose
from shoestring.engine.dispatch import Dispatcher, OutputStream
from shoestring.engine.engine import Engine
from shoestring.engine.load import default_sampling, load_engine
from shoestring.engine.request import OutputKind, Request, RequestOutput, SamplingParams, derived_seed
from shoestring.engine.settings import EngineCounters, EngineSettings, SpeculationMethod
from shoestring.errors import ConfigError, TokenizerError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.model.memory import Quantization
from shoestring.tokenizer.bpe import Tokenizer
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
    """One model in this process; names, arguments and results are those of vLLM's class of this name.

    Differences: text never becomes a special token (give ids, or use chat), `seed` makes requests without a
    seed of their own repeatable, and `stream` yields results as they come. Not thread-safe.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        tokenizer: str | Path | None = None,
        quantization: Quantization | None = None,
        device: str = "auto",
        seed: int | None = 0,
        max_model_len: int | None = None,
        max_num_seqs: int = 64,
        speculation: SpeculationMethod = "auto",
    ) -> None:
        """Load a folder, `org/name` or `org/name@revision`; raises ShoestringError, before memory is spent.

        Args:
            tokenizer: a folder with tokenizer.json, if not the model's; it may hold the chat template.
            quantization: None (as stored), "int8" or "int4"; packed checkpoints need none.
            seed: of requests without one: the same calls in the same order give the same texts. None: fresh.
            max_model_len, max_num_seqs, speculation: see EngineSettings, for whose other fields there is
                LLM.of(Engine(...)).
        """
        checkpoint = Checkpoint.open(resolve(str(model)))
        words = checkpoint if tokenizer is None else Checkpoint.open(resolve(str(tokenizer)))
        settings = EngineSettings(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max(EngineSettings.max_num_batched_tokens, max_num_seqs),
            max_model_len=max_model_len,
            speculation=speculation,
        )
        other = None if tokenizer is None else words.tokenizer
        runtime = choose(device)
        engine = load_engine(
            checkpoint, runtime, tokenizer=other, quantization=quantization, settings=settings
        )
        self._begin(engine, words, default_sampling(checkpoint), seed)

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

        Nothing runs before all are accepted: ConfigError for one that is not. Ctrl-C gives up all of them.
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
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """The next turn of one conversation or of many, by the model's chat template; see ChatOptions."""
        options = ChatOptions(
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            chat_template_kwargs=chat_template_kwargs,
        )
        one = is_conversation(messages) or not messages
        conversations: Any = [messages] if one else messages
        return self._complete(
            [self._chat(each, options) for each in conversations], sampling_params, use_tqdm
        )

    def stream(
        self,
        prompt: PromptInput | Conversation,
        sampling_params: SamplingParams | None = None,
        *,
        tools: Sequence[Message] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> OutputStream:
        """The new text and tokens after each step, for one prompt or conversation; closing it aborts them."""
        if is_conversation(prompt):
            options = ChatOptions(tools=tools, chat_template_kwargs=chat_template_kwargs)
            read = [self._chat(prompt, options)]
        elif tools or chat_template_kwargs:
            raise ConfigError("tools and chat_template_kwargs go with a conversation, not with a prompt")
        else:
            read = read_prompts(prompt, self.tokenizer)
        if len(read) != 1:
            raise ConfigError(f"stream takes one prompt, not {len(read)}; generate takes many")
        return self.dispatcher.outputs(self._requests(read, sampling_params, "delta"))

    def get_tokenizer(self) -> Tokenizer:
        """The tokenizer; ConfigError for a model without one."""
        if self.tokenizer is None:
            raise ConfigError("this model has no tokenizer; it takes and gives token ids")
        return self.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What a call without sampling_params uses: the checkpoint's generation_config.json."""
        return SamplingParams(**self.default_sampling)

    @property
    def counters(self) -> EngineCounters:
        """The engine's figures as they are now."""
        return self.engine.counters

    @property
    def template(self) -> Template:
        """The chat template; TokenizerError when the model has none."""
        if self._checkpoint is None:
            raise TokenizerError("this LLM was made without a folder, so it has no chat template")
        self.get_tokenizer()  # refuses a model without one
        return self._checkpoint.template

    @property
    def has_template(self) -> bool:
        """Whether the model brings a chat template; whether that is sound shows when it is used."""
        return self._checkpoint is not None and self.tokenizer is not None and self._checkpoint.has_template

    def _chat(self, messages: Conversation, options: ChatOptions) -> Prompt:
        return read_chat(messages, self.get_tokenizer(), self.template, options)

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
        for prompt, wanted in zip(prompts, params, strict=True):
            number = next(self._numbers)
            request = Request(
                request_id=str(number),
                prompt_token_ids=prompt.token_ids,
                sampling_params=replace(wanted, output_kind=kind, seed=self._seed_of(wanted, number)),
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
    """A bar on stderr if that is a terminal; yields what to call for each request that is done."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(stderr=True)
    shown = show and console.is_terminal
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not shown, transient=True) as progress:
        task = progress.add_task("requests", total=total)
        yield lambda: progress.advance(task)
