"""lm-evaluation-harness on a model in this process: its tasks, with our forward pass and engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from shoestring.engine.llm import LLM
from shoestring.engine.request import MAX_STOP_LENGTH, SamplingParams
from shoestring.errors import ConfigError, DataError, MissingDependencyError
from shoestring.evals.loglikelihood import LogLikelihood, score_continuations
from shoestring.tokenizer.prompts import ChatOptions, read_chat
from shoestring.tokenizer.special import THINK_END

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The names that tasks use for the limit, in the harness's order of preference."""


@dataclass(frozen=True, kw_only=True)
class HarnessConfig:
    """Settings of the harness: with the model and the tasks' names they determine its figures."""

    num_fewshot: int | None = None
    """Examples before each question; None: each task's own number."""
    limit: int | None = None
    """Only so many questions of each task: for trials, not for results."""
    apply_chat_template: bool = False
    """Format the questions with the model's chat template (lm-eval's --apply_chat_template)."""
    thinking: bool = False
    """Have the template turn thinking on; tasks see the answer after it, and stop strings apply to that."""
    max_tokens: int = 256
    """Longest generated answer, thinking included, for tasks that set no limit."""
    include_path: str = ""
    """A folder of your own task files, instead of the library's; they can run Python: trust them."""
    batch_tokens: int = 8192
    """Tokens of one forward pass, padding included; changes figures by rounding only."""
    seed: int = 0
    """Seed of few-shot examples and sampled answers."""

    def __post_init__(self) -> None:
        for name in ("limit", "max_tokens", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} = {value} must be at least 1")
        if self.thinking and not self.apply_chat_template:
            raise ConfigError(
                "thinking = true is asked of a chat template; set apply_chat_template = true too"
            )


def evaluate_harness(llm: LLM, tasks: Sequence[str], config: HarnessConfig) -> dict[str, Any]:
    """Scores by task, as the harness computes them, with its versions, shots and counts.

    Raises MissingDependencyError without lm-eval (extra `eval`), ConfigError for tasks it does not have.
    To score a server, use the harness itself: `lm_eval --model local-chat-completions`.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingDependencyError(
            "lm-evaluation-harness is not installed: pip install 'shoestring-llm[eval]'"
        ) from None
    folder = config.include_path
    manager = TaskManager(include_path=folder or None, include_defaults=not folder)  # defaults take seconds
    names = list(manager.all_tasks)
    if wrong := [task for task in tasks if task not in names]:
        near = ", ".join(get_close_matches(wrong[0], names, n=8, cutoff=0.5))
        raise ConfigError(
            f"{folder or 'lm-evaluation-harness'} has no task {wrong[0]!r}"
            + (f"; similar names are {near}" if near else "")
        )
    results = simple_evaluate(
        make_lm(llm, config),
        tasks=list(tasks),
        num_fewshot=config.num_fewshot,
        limit=config.limit,
        apply_chat_template=config.apply_chat_template,
        task_manager=manager,
        log_samples=False,
        bootstrap_iters=1000,
        random_seed=config.seed,
        numpy_random_seed=config.seed,
        torch_random_seed=config.seed,
        fewshot_random_seed=config.seed,
    )
    return read_results(results or {})


def read_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's figures alone: `{task: {"figures": {metric: number}, "version": ...}}`."""
    if not results.get("results"):
        raise DataError("lm-evaluation-harness gave no results")
    report = {}
    for task, figures in results["results"].items():
        numbers = {
            name.removesuffix(",none"): float(value)
            for name, value in figures.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value  # no NaN
        }
        report[task] = {
            "figures": numbers,
            "version": results.get("versions", {}).get(task),
            "num_fewshot": results.get("n-shot", {}).get(task),
            "problems": results.get("n-samples", {}).get(task, {}).get("effective"),
        }
    return report


class Generation(NamedTuple):
    """The sampling parameters and stop strings of one generated answer."""

    params: SamplingParams
    until: tuple[str, ...]
    """Strings at which the text is cut, also where the engine does not stop at them."""


class Adapter:
    """The requests of the harness, answered by our model: log-likelihoods, rolling ones, generations."""

    def __init__(self, llm: LLM, config: HarnessConfig) -> None:
        self.llm, self.config = llm, config
        self.tokenizer, self.max_length = llm.get_tokenizer(), llm.engine.max_model_len
        roles = self.tokenizer.roles
        self.prefix_id = self.tokenizer.bos_id if "bos_token" in roles else self.tokenizer.eos_id
        """The token from which the first token of a text is predicted."""

    def encode(self, text: str, *, begin: bool | None = None) -> list[int]:
        """Ids with the begin token first (`begin` None: as in a prompt, unless the text begins with it).

        Special tokens are read as such only in texts from a chat template.
        """
        ids = self.tokenizer.encode(text, allow_special=self.config.apply_chat_template)
        if begin is None:
            first = list(self.tokenizer.begin_ids)
            return ids if ids[: len(first)] == first else [*first, *ids]
        return [self.prefix_id, *ids] if begin else ids

    def loglikelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[LogLikelihood]:
        """Log-probabilities of continuations after contexts, both as ids."""
        return score_continuations(
            self.llm.engine.model, pairs, max_length=self.max_length, batch_tokens=self.config.batch_tokens
        )

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """Log-probability of whole texts, each token once, in windows of the context's length."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        windows, counts = [], []
        for text in texts:
            ids = self.encode(text, begin=False)
            parts = [
                make_disjoint_window(window)
                for window in get_rolling_token_windows(ids, self.prefix_id, self.max_length, 1)
            ]
            windows += parts
            counts.append(len(parts))
        results = iter(self.loglikelihoods(windows))
        return [sum(next(results).logprob for _ in range(count)) for count in counts]

    def generate(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Answers to (context, settings); too long contexts lose their beginning, as in the harness."""
        generations = [self.generation(settings) for _, settings in requests]
        prompts = []
        for (context, _), generation in zip(requests, generations, strict=True):
            max_prompt = self.max_length - (generation.params.max_tokens or 1)
            if max_prompt < 1:
                raise ConfigError(
                    f"a task wants {generation.params.max_tokens} tokens and the context holds "
                    f"{self.max_length}; set max_tokens lower"
                )
            prompts.append({"prompt_token_ids": self.encode(context)[-max_prompt:]})
        outputs = self.llm.generate(prompts, [generation.params for generation in generations])
        return [
            self._cut(output.outputs[0].text, generation.until)
            for output, generation in zip(outputs, generations, strict=True)
        ]

    def generation(self, settings: Mapping[str, Any]) -> Generation:
        """A task's generation_kwargs; greedy unless do_sample is true. ConfigError for unknown ones."""
        options = {name: value for name, value in settings.items() if value is not None}
        limits = [options.pop(name) for name in TOKEN_LIMITS if name in options]
        until = options.pop("until", ())
        stops = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        do_sample = options.pop("do_sample", options.get("temperature", 0.0) > 0)
        temperature = options.pop("temperature", 1.0)
        names = ("top_p", "top_k", "min_p", "repetition_penalty")
        more = {name: options.pop(name) for name in names if name in options}
        if options:
            raise ConfigError(
                f"the task's generation_kwargs have {next(iter(options))!r}, which this engine does not have"
            )
        is_cut_later = self.config.thinking or any(len(text) > MAX_STOP_LENGTH for text in stops)
        params = SamplingParams(
            temperature=float(temperature) if do_sample else 0.0,
            max_tokens=int(limits[0]) if limits else self.config.max_tokens,
            stop=() if is_cut_later else stops,
            seed=self.config.seed,
            **more,
        )
        return Generation(params, stops)

    def chat(self, history: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        """A conversation in the template's format; without a generation prompt its last message continues."""
        options = ChatOptions(
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            chat_template_kwargs={"thinking": self.config.thinking},
        )
        return read_chat(history, self.tokenizer, self.llm.template, options).text or ""

    def _cut(self, text: str, until: Sequence[str]) -> str:
        if self.config.thinking:
            text = text.rpartition(THINK_END)[2].lstrip()
        for stop in until:
            text = text.partition(stop)[0]
        return text


def make_lm(llm: LLM, config: HarnessConfig) -> "LM":
    """Our model as the harness's model class, which exists only where lm-eval is installed."""
    from lm_eval.api.model import TemplateLM

    adapter = Adapter(llm, config)

    class ShoestringLM(TemplateLM):  # type: ignore[misc]
        """Every method calls the adapter."""

        eot_token_id = property(lambda self: adapter.tokenizer.eos_id)
        prefix_token_id = property(lambda self: adapter.prefix_id)
        tokenizer_name = property(lambda self: adapter.tokenizer.name.replace("/", "__"))
        max_length = property(lambda self: adapter.max_length)

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            return adapter.encode(string, begin=add_special_tokens)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            return [*adapter.loglikelihoods([(context, ids) for _, context, ids in requests])]

        def loglikelihood_rolling(self, requests: "list[Instance]", **_: Any) -> list[float]:
            return adapter.rolling([request.args[0] for request in requests])

        def generate_until(self, requests: "list[Instance]", **_: Any) -> list[str]:
            return adapter.generate([request.args for request in requests])

        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
            return adapter.chat(chat_history, add_generation_prompt)

        def chat_template(self, chat_template: bool | str = False) -> str:
            return adapter.llm.template.name if chat_template else ""

    return ShoestringLM()
