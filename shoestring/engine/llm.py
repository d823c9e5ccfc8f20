"""LLM: one model behind vLLM's offline API: generate, chat, stream, score and beam search.

Names, arguments and results are vLLM's. What differs, and why:

| Name | Here | Reason |
|---|---|---|
| LLM(device) | an argument | one package serves every device |
| LLM(speculation, num_speculative_tokens, adaptive_speculation) | or speculative_config | for --set |
| LLM(stream_interval_s) | vLLM counts tokens (stream_interval) | an event costs more than a token |
| LLM(prompt_share) | additional; 0.5 in the service | a long prompt delays streams by a known factor |
| LLM(kv_cache_memory_bytes) | gpu_memory_utilization has no effect | other programs use the memory too |
| LLM(tensor_parallel_size, ...) | only values that change nothing | one device, one model |
| LLM(enable_lora, max_loras, ...) | no effect: an adapter is loaded when first named, and stays | simpler |
| LLM.stream, LLM.of, LLM.counters | additional | text as it comes, parts from elsewhere, no metrics service |
| LLM.score | log-probability of the second text after the first | the models here are no rerankers |
| LLM.get_metrics | no queue time, and buckets of one kind for all times | what this engine measures |
| LLM.beam_search | extends by the likeliest tokens only, temperature 0 | with others it would be sampling |
| get_tokenizer() | the package's Tokenizer with transformers' methods | nothing here needs transformers |
| prompts | text never becomes a special token | a user's text cannot forge a turn; give ids, or use chat |
| SamplingParams(guided_decoding) | the name of structured_outputs in older scripts | they run |
| SamplingParams(seed) | without one it derives from the LLM's seed | the same calls give the same texts |
| SamplingParams(output_kind) | "cumulative", "delta" or "final_only" | set by generate and stream |
| SamplingParams(skip_special_tokens) | leaves <think> tags in the text | they separate the answer |
| SamplingParams(logprobs) | any number, and max_logprobs has no effect | there is no server to protect |
| SamplingParams(token_logprobs), CompletionOutput.token_logprobs | additional | trainers need plain numbers |
| StructuredOutputsParams(tools, tool_choice, parallel_tool_calls, tool_format) | additional | tool calls |
| StructuredOutputsParams(after_token_id) | additional | thinking is free |
| RequestOutput.prompt_experts | additional | a view of an answer shows what each token was routed to |
| RequestOutput.metrics | arrival_s, first_token_s, last_token_s, and drafts | units are part of names |

An argument that vLLM does not have either raises an error.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

from shoestring.config import build
from shoestring.device import choose
from shoestring.engine.dispatch import Dispatcher, OutputStream
from shoestring.engine.engine import Engine
from shoestring.engine.load import default_sampling, load_engine
from shoestring.engine.offline.adapters import AdapterInput, Adapters, adapter_names
from shoestring.engine.offline.arguments import at_revision, check_seed, engine_settings
from shoestring.engine.offline.beam_search import beam_search, likeliest_tokens
from shoestring.engine.offline.metrics import metrics
from shoestring.engine.offline.score import continued, score
from shoestring.engine.offline.tokenizer import ScriptTokenizer
from shoestring.engine.request import OutputKind, Request, RequestOutput, SamplingParams, derived_seed
from shoestring.engine.settings import EngineCounters, EngineSettings
from shoestring.errors import ConfigError, TokenizerError
from shoestring.inputs import LoRARequest
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.model.hf.named import open_model
from shoestring.model.memory import Quantization
from shoestring.outputs import (
    BeamSearchOutput,
    Metric,
    ScoringRequestOutput,
)
from shoestring.sampling_params import BeamSearchParams
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.functions import tool_definitions
from shoestring.tokenizer.chat.load import template_of
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.prompts import (
    ChatOptions,
    Conversation,
    Prompt,
    PromptInput,
    is_conversation,
    read_chat,
    read_prompts,
    warn_of_spelled_tokens,
)

Params = SamplingParams | Sequence[SamplingParams] | None


class LLM:
    """One model in this process. Not thread-safe."""

    _adapters: Adapters | None = None

    def __init__(
        self,
        model: str | Path,
        *,
        tokenizer: str | Path | None = None,
        quantization: Quantization | None = None,
        device: str = "auto",
        seed: int | None = 0,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
        **settings: Any,
    ) -> None:
        """Load a folder, `org/name[@revision]` or MODEL+ADAPTER; ShoestringError if that is impossible.

        Args:
            tokenizer: a folder with tokenizer.json, if not the model's; it may hold the chat template.
            quantization: None (as stored), "int8" or "int4"; packed checkpoints need none.
            device: "auto", or PyTorch's name of a device.
            seed: for requests without one: the same calls in the same order give equal texts. None: random.
            max_model_len, max_num_seqs, settings: the fields of EngineSettings, such as
                max_num_batched_tokens, enable_prefix_caching, kv_cache_memory_bytes and speculation; and
                vLLM's other arguments, see engine/offline/arguments.py.
        """
        model = at_revision(model, settings.pop("revision", None))
        tokenizer_revision = settings.pop("tokenizer_revision", None)
        settings = engine_settings({"max_model_len": max_model_len, "max_num_seqs": max_num_seqs, **settings})
        sequences = settings.get("max_num_seqs", EngineSettings.max_num_seqs)
        if isinstance(sequences, int):
            at_once = max(EngineSettings.max_num_batched_tokens, sequences)
            settings.setdefault("max_num_batched_tokens", at_once)
        limits = build(EngineSettings, settings, where="LLM")
        checkpoint = open_model(model)
        source = checkpoint
        if tokenizer is not None:
            source = Checkpoint.open(
                resolve(at_revision(tokenizer, tokenizer_revision, "tokenizer_revision"))
            )
        runtime = choose(device)
        engine = load_engine(
            checkpoint,
            runtime,
            tokenizer=None if tokenizer is None else source.tokenizer,
            quantization=quantization,
            settings=limits,
        )
        self._begin(engine, source, default_sampling(checkpoint), seed)
        self._adapters = Adapters(engine, checkpoint, runtime, quantization)

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
        self.engine, self.tokenizer, self.max_model_len = engine, engine.tokenizer, engine.max_model_len
        self._checkpoint, self.default_sampling = checkpoint, dict(sampling)
        self._seed = check_seed(seed)
        self._numbers = count()
        self.dispatcher = Dispatcher(engine)

    def generate(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        sampling_params: Params = None,
        use_tqdm: Any = True,
        lora_request: AdapterInput = None,
    ) -> list[RequestOutput]:
        """Complete one prompt or many; results in their order. `use_tqdm` shows progress on a terminal.

        `lora_request` is an adapter for all of them, or a list with one or None for each.

        Raises ConfigError for a prompt that cannot be served, before any of them runs. Ctrl-C aborts them.
        """
        results = read_prompts(prompts, self.tokenizer)
        warn_of_spelled_tokens(prompts, self.tokenizer)
        return self._complete(results, sampling_params, use_tqdm, lora_request)

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: Params = None,
        use_tqdm: Any = True,
        lora_request: AdapterInput = None,
        **options: Any,
    ) -> list[RequestOutput]:
        """Complete the next turn of one conversation or of many, by the chat template.

        `options` are those of ChatOptions, with functions or definitions as tools, and chat_template: a
        Jinja text, or a file with one, to use instead of the model's.
        """
        conversations: Any = [messages] if is_conversation(messages) or not messages else messages
        prompts = self._chats(conversations, options)
        return self._complete(prompts, sampling_params, use_tqdm, lora_request)

    def score(
        self, data_1: PromptInput | Sequence[PromptInput], data_2: str | Sequence[str], use_tqdm: Any = True
    ) -> list[ScoringRequestOutput]:
        """The log-probability of each of `data_2` as the continuation of its text or prompt in `data_1`.

        One text in `data_1` goes with all of `data_2`. A continuation gets no begin token.
        """
        texts = [data_2] if isinstance(data_2, str) else list(data_2)
        prompts, counts = continued(read_prompts(data_1, self.tokenizer), texts, self._tokenizer())
        params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)
        outputs = self._complete(prompts, params, use_tqdm)
        return [score(output, count) for output, count in zip(outputs, counts, strict=True)]

    def beam_search(
        self,
        prompts: PromptInput | Sequence[PromptInput],
        params: BeamSearchParams,
        lora_request: LoRARequest | None = None,
        use_tqdm: Any = False,
    ) -> list[BeamSearchOutput]:
        """The likeliest continuations of each prompt; see engine/offline/beam_search.py."""
        if not isinstance(params, BeamSearchParams):
            raise ConfigError(f"beam_search takes BeamSearchParams, not {type(params).__name__}")
        rows = [prompt.token_ids for prompt in read_prompts(prompts, self.tokenizer)]
        complete = partial(self._complete, show=False, adapters=lora_request)
        likeliest = partial(likeliest_tokens, complete, self.engine.max_model_len)
        results = beam_search(rows, params, likeliest, self.engine.eos_ids)
        for sequence in (sequence for sequences in results for sequence in sequences):
            sequence.text = self.tokenizer.decode(sequence.tokens) if self.tokenizer else None
        return [BeamSearchOutput(sequences=sequences) for sequences in results]

    def reset_prefix_cache(self) -> bool:
        """Empty the prefix cache; False, changing nothing, while requests are unfinished."""
        if self.engine.has_unfinished():
            return False
        self.engine.scheduler.pool.reset_prefix_cache()
        return True

    def get_metrics(self) -> list[Metric]:
        """The engine's current values, totals and distributions under vLLM's names."""
        return metrics(self.engine, "" if self._checkpoint is None else self._checkpoint.folder.name)

    def stream(
        self,
        prompt: PromptInput | Conversation,
        sampling_params: SamplingParams | None = None,
        **options: Any,
    ) -> OutputStream:
        """Iterate over the new text and tokens of one prompt or conversation; `close` aborts it.

        `options` go with a conversation, as in `chat`.
        """
        if is_conversation(prompt):
            prompts = self._chats([prompt], options)
        elif any(options.values()):
            raise ConfigError(f"{', '.join(options)} go with a conversation, not with a prompt")
        else:
            prompts = read_prompts(prompt, self.tokenizer)
            warn_of_spelled_tokens(prompt, self.tokenizer)
        if len(prompts) != 1:
            raise ConfigError(f"stream takes one prompt, not {len(prompts)}; generate takes many")
        return self.dispatcher.outputs(self._requests(prompts, sampling_params, "delta"))

    def get_tokenizer(self) -> ScriptTokenizer:
        """The tokenizer, with transformers' methods; ConfigError for a model without one."""
        return ScriptTokenizer(self._tokenizer(), self._template)

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
        self._tokenizer()  # refuses a model without one
        return self._checkpoint.template

    @property
    def has_template(self) -> bool:
        """Return whether the model has a chat template; an invalid one is an error when it is used."""
        return self._checkpoint is not None and self.tokenizer is not None and self._checkpoint.has_template

    def _chats(self, conversations: Sequence[Conversation], options: Mapping[str, Any]) -> list[Prompt]:
        """The prompts of conversations by the chat template, or by the one in `options`."""
        names = {name: value for name, value in options.items() if name != "chat_template"}
        chat_options, template = _chat_options(names), self._template(options.get("chat_template"))
        return [read_chat(one, self._tokenizer(), template, chat_options) for one in conversations]

    def _template(self, source: str | None) -> Template:
        return self.template if source is None else template_of(source, self._tokenizer())

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ConfigError("this model has no tokenizer; it takes and gives token ids")
        return self.tokenizer

    def _complete(
        self, prompts: list[Prompt], params: Params, show: bool, adapters: AdapterInput = None
    ) -> list[RequestOutput]:
        requests = self._requests(prompts, params, "final_only", adapters)
        outputs: dict[str, RequestOutput] = {}
        with _progress(len(requests), show) as advance, self.dispatcher.outputs(requests) as stream:
            for output in stream:
                outputs[output.request_id] = output
                advance()
        return [outputs[request.request_id] for request in requests]

    def _requests(
        self, prompts: list[Prompt], params: Params, kind: OutputKind, adapters: AdapterInput = None
    ) -> list[Request]:
        """One request for each prompt, with its seed; the engine checks them."""
        if params is None:
            params = self.get_default_sampling_params()
        own_params: Any = [params] * len(prompts) if isinstance(params, SamplingParams) else params
        _check_params(own_params)
        if len(own_params) != len(prompts):
            raise ConfigError(
                f"{len(own_params)} sampling_params for {len(prompts)} prompts; give one, or one each"
            )
        requests = []
        names = adapter_names(self._adapters, adapters, len(prompts))
        for prompt, own, adapter in zip(prompts, own_params, names, strict=True):
            number, own = next(self._numbers), own.clone()  # checked again: its fields can be set
            request = Request(
                request_id=str(number),
                prompt_token_ids=prompt.token_ids,
                sampling_params=replace(own, output_kind=kind, seed=_seed_of(own, self._seed, number)),
                prompt=prompt.text,
                cache_salt=prompt.cache_salt,
                adapter=adapter,
            )
            requests.append(request)
        return requests


def _seed_of(params: SamplingParams, llm_seed: int | None, number: int) -> int | None:
    """A request's seed: its own, or one derived from the LLM's and its number."""
    if params.seed is not None or llm_seed is None:
        return params.seed
    return derived_seed(llm_seed, number)


def _chat_options(options: Mapping[str, Any]) -> ChatOptions:
    """ChatOptions with functions as tools; TypeError for a name that is none of its own."""
    options = dict(options)
    if "tools" in options:
        options["tools"] = tool_definitions(options["tools"])
    return ChatOptions(**options)


def _check_params(params: Any) -> None:
    """Raise ConfigError unless these are sampling parameters."""
    if not isinstance(params, (list, tuple)):
        kind = type(params).__name__
        raise ConfigError(f"sampling_params is a {kind}, neither SamplingParams nor a list of them")
    if wrong := [own for own in params if not isinstance(own, SamplingParams)]:
        raise ConfigError(f"sampling_params holds a {type(wrong[0]).__name__}, not SamplingParams")


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
