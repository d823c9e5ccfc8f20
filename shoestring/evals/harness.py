"""lm-evaluation-harness on a model in this process: its tasks, our forward pass and engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from shoestring.engine.llm import LLM
from shoestring.engine.request import MAX_STOP_LENGTH, SamplingParams
from shoestring.errors import ConfigError, DataError, MissingDependencyError
from shoestring.evals.loglikelihood import Scored, score_continuations
from shoestring.tokenizer.prompts import ChatOptions, read_chat
from shoestring.tokenizer.special import THINK_END

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM

TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What tasks call it, in the order in which the harness prefers them."""


@dataclass(frozen=True, kw_only=True)
class HarnessConfig:
    """Everything that decides the harness's figures, beside the model and the tasks' names."""

    num_fewshot: int | None = None
    """Examples before each question; None is each task's own number."""
    limit: int | None = None
    """Only so many questions of each task: for trying, not for reporting."""
    apply_chat_template: bool = False
    """Put the questions into the model's chat template."""
    thinking: bool = False
    """Ask the template for thinking; the task sees the answer after it, and stop strings apply there."""
    max_tokens: int = 256
    """Of a generated answer, where the task does not say; thinking counts."""
    include_path: str = ""
    """A folder of your own task files, instead of the library's (YAML that may run Python: trust them)."""
    batch_tokens: int = 8192
    """Rows of a forward pass times their length; changes no figure beyond rounding."""
    seed: int = 0
    """Of few-shot examples and sampled answers."""

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
    """Scores by task, each with versions, shots and counts, as the harness computes them.

    Raises MissingDependencyError without lm-eval (extra `eval`), ConfigError for tasks it does not have.
    A server is scored by the harness itself, with `lm_eval --model local-chat-completions`.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingDependencyError(
            "lm-evaluation-harness is not installed: pip install 'shoestring-llm[eval]'"
        ) from None
    own = config.include_path
    manager = TaskManager(include_path=own or None, include_defaults=not own)  # the library's take seconds
    known = list(manager.all_tasks)
    if wrong := [task for task in tasks if task not in known]:
        near = ", ".join(get_close_matches(wrong[0], known, n=8, cutoff=0.5))
        raise ConfigError(
            f"{own or 'lm-evaluation-harness'} has no task {wrong[0]!r}"
            + (f"; near it are {near}" if near else "")
        )
    found = simple_evaluate(
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
    return read_results(found or {})


def read_results(found: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's figures without its notes: `{task: {"figures": {metric: number}, "version": ...}}`."""
    if not found.get("results"):
        raise DataError("lm-evaluation-harness gave no results")
    report = {}
    for task, figures in found["results"].items():
        numbers = {
            name.removesuffix(",none"): float(value)
            for name, value in figures.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value  # no NaN
        }
        report[task] = {
            "figures": numbers,
            "version": found.get("versions", {}).get(task),
            "num_fewshot": found.get("n-shot", {}).get(task),
            "problems": found.get("n-samples", {}).get(task, {}).get("effective"),
        }
    return report


class Generation(NamedTuple):
    """What a task wants generated."""

    params: SamplingParams
    until: tuple[str, ...]
    """Cut off here what the engine does not stop at."""


class Adapter:
    """The three questions that the harness asks of a model, in our terms."""

    def __init__(self, llm: LLM, config: HarnessConfig) -> None:
        self.llm, self.config = llm, config
        self.tokenizer, self.max_length = llm.get_tokenizer(), llm.engine.max_model_len
        roles = self.tokenizer.roles
        self.prefix_id = self.tokenizer.bos_id if "bos_token" in roles else self.tokenizer.eos_id
        """What the first token of a text is predicted from."""

    def encode(self, text: str, *, begin: bool | None = None) -> list[int]:
        """Ids with the begin token in front (`begin` None: if the tokenizer has one and the text does not).

        Special tokens count in texts that a chat template made, and nowhere else.
        """
        bos = self.tokenizer.roles.get("bos_token")
        ids = self.tokenizer.encode(text, allow_special=self.config.apply_chat_template)
        wanted = bos is not None and ids[:1] != [self.tokenizer.specials[bos]] if begin is None else begin
        return [self.prefix_id, *ids] if wanted else ids

    def loglikelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Scored]:
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
            mine = [
                make_disjoint_window(window)
                for window in get_rolling_token_windows(ids, self.prefix_id, self.max_length, 1)
            ]
            windows += mine
            counts.append(len(mine))
        scored = iter(self.loglikelihoods(windows))
        return [sum(next(scored).logprob for _ in range(count)) for count in counts]

    def generate(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Answers; contexts that leave too little room lose their beginning, as the harness does it."""
        wanted = [self.generation(settings) for _, settings in asked]
        prompts = []
        for (context, _), generation in zip(asked, wanted, strict=True):
            room = self.max_length - (generation.params.max_tokens or 1)
            if room < 1:
                raise ConfigError(
                    f"a task wants {generation.params.max_tokens} tokens and the context holds "
                    f"{self.max_length}; set max_tokens lower"
                )
            prompts.append({"prompt_token_ids": self.encode(context)[-room:]})
        outputs = self.llm.generate(prompts, [generation.params for generation in wanted])
        return [
            self._cut(output.outputs[0].text, generation.until)
            for output, generation in zip(outputs, wanted, strict=True)
        ]

    def generation(self, settings: Mapping[str, Any]) -> Generation:
        """A task's generation_kwargs; greedy unless it says do_sample. ConfigError for what we cannot do."""
        given = {name: value for name, value in settings.items() if value is not None}
        limits = [given.pop(name) for name in TOKEN_LIMITS if name in given]
        until = given.pop("until", ())
        stops = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        sampled = given.pop("do_sample", given.get("temperature", 0.0) > 0)
        temperature = given.pop("temperature", 1.0)
        names = ("top_p", "top_k", "min_p", "repetition_penalty")
        more = {name: given.pop(name) for name in names if name in given}
        if given:
            raise ConfigError(
                f"the task's generation_kwargs have {next(iter(given))!r}, which is not known here"
            )
        late = self.config.thinking or any(len(text) > MAX_STOP_LENGTH for text in stops)
        params = SamplingParams(
            temperature=float(temperature) if sampled else 0.0,
            max_tokens=int(limits[0]) if limits else self.config.max_tokens,
            stop=() if late else stops,
            seed=self.config.seed,
            **more,
        )
        return Generation(params, stops)

    def chat(self, history: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        """A conversation as the template writes it; without a generation prompt its last message goes on."""
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
    """The harness's model class around ours; it exists only where lm-eval is installed."""
    from lm_eval.api.model import TemplateLM

    adapter = Adapter(llm, config)

    class ShoestringLM(TemplateLM):  # type: ignore[misc]
        """Every method hands on to the adapter."""

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
