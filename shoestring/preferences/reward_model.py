"""Training of a reward model on pairs (Bradley-Terry), from its recipe to its report."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from shoestring.cost.step import Pass, learning
from shoestring.device import Runtime
from shoestring.errors import ConfigError
from shoestring.model.hf.reward import is_reward_model, load_reward_model, padded_ids, reward_ids
from shoestring.model.lora import add_adapters
from shoestring.model.reward import RewardModel, with_reward_head
from shoestring.preferences.outcome import Outcome
from shoestring.preferences.recipe import ComparisonConfig, RewardModelConfig
from shoestring.preferences.run import ComparisonRun, build, restore
from shoestring.preferences.trainer import ComparisonTrainer
from shoestring.train.loop import train
from shoestring.train.parallel import Ranks, require_one_process
from shoestring.train.report.display import Display
from shoestring.train.runs.flops import method_of
from shoestring.train.runs.lock import run_lock
from shoestring.train.tuning import Start, load_start

VERB = "Trained as a reward model by `shoestring reward-model` (Bradley-Terry)"


def train_reward_model(
    config: RewardModelConfig, runtime: Runtime, out: Path, *, resume: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Train a reward model in folder `out` and return the report, which is also left there as report.json.

    `out/model` is the result, which transformers opens as ...ForSequenceClassification; after a LoRA run it
    is the merged model, and `out/adapter` the adapter with the head. Resumes and errors are as of `prefer`.
    """
    require_one_process(runtime, "training a reward model")
    files = ", ".join(Path(name).name for name in config.data)
    with run_lock(out):
        with Display(f"reward model: {config.model} on {files} -> {out.name}", 1, quiet=quiet) as display:
            run = restore(
                build(config, runtime, out, resume=resume, load=load_head_start, verb=VERB, say=display.say)
            )
        title = f"{run.name}: {len(run.data) - len(run.heldout):,} pairs"
        with Display(title, run.total_steps, unit="steps", quiet=quiet) as display:
            trainer = ComparisonTrainer(
                run, runtime, RewardObjective(run, config.center_rewards_coefficient).judge
            )
            train(
                trainer,
                Ranks(runtime),
                resume=resume,
                save_every=config.save_every,
                eval_every=config.eval_every,
                show=display.update,
                watts=config.watts,
            )
        return trainer.finish()


def load_head_start(
    config: ComparisonConfig, runtime: Runtime, start: Start, turn_ends: Iterable[int]
) -> RewardModel:
    """The reward model to train: that of the recipe or checkpoint, or a language model with a new head."""
    if start.weights is not None and start.weights.quantization is not None:
        raise ConfigError(
            f"{config.model} is packed by `quantize`, and a reward model needs weights that are not; --set "
            "model=... to what it was made from"
        )
    generator = torch.Generator(runtime.device).manual_seed(config.seed)
    if start.weights is not None and is_reward_model(start.weights):
        dtype = runtime.compute_dtype if config.lora.rank else torch.float32
        model = load_reward_model(
            start.weights, dtype=dtype, compute_dtype=runtime.compute_dtype, device=runtime.device
        )
        if config.lora.rank:
            add_adapters(model, config.lora, generator)
    else:
        model = with_reward_head(load_start(config, runtime, start, turn_ends), generator)
    model.score.weight.requires_grad_(True)  # it is trained beside adapters too
    model.score.weight.data = model.score.weight.data.float()
    return model.train()


def bradley_terry(chosen_B: Tensor, rejected_B: Tensor, *, center_rewards_coefficient: float = 0.0) -> Tensor:
    """-log sigmoid(chosen - rejected reward) (B,): the Bradley-Terry model of which answer is preferred.

    InstructGPT, arXiv 2203.02155, section 3.5, eq. 1, with one pair per prompt. The coefficient weighs the
    square of a pair's sum of rewards, which the first part leaves undetermined.
    """
    loss_B = -logsigmoid(chosen_B - rejected_B)
    return loss_B + center_rewards_coefficient * (chosen_B + rejected_B).square()


class RewardObjective:
    """Bradley-Terry losses of a run's pairs under its reward model."""

    def __init__(self, run: ComparisonRun, center_rewards_coefficient: float) -> None:
        assert isinstance(run.model, RewardModel)
        self.run, self.model = run, run.model
        self.center_rewards_coefficient = center_rewards_coefficient

    def judge(self, units: Sequence[int]) -> Iterator[Outcome]:
        """The outcome of each micro-batch of a step."""
        data, pad_id = self.run.data, self.model.config.pad_token_id
        for batch in data.batches(units, self.run.config.micro_tokens, self.model.device):
            rows = [reward_ids(data.answers[number].ids.tolist(), pad_id) for number in batch.numbers]
            ids_RT, lengths_R = padded_ids(rows, self.model.device)
            rewards_R = self.model.rewards(ids_RT, lengths_R)
            work = Pass.of_rows(
                len(ids_RT), ids_RT.shape[1], (0,)
            )  # the head is one number, of the last token
            chosen_B, rejected_B = rewards_R.chunk(2)
            loss_B = bradley_terry(
                chosen_B, rejected_B, center_rewards_coefficient=self.center_rewards_coefficient
            )
            yield Outcome(
                loss_B=loss_B,
                rewards_R=rewards_R.detach(),
                is_chosen_R=batch.is_chosen_B,
                is_right_B=chosen_B > rejected_B,
                flops=learning(self.model.config, work, method_of(self.run.config)),
            )
