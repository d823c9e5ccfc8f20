"""Training of a policy on preferences (DPO, IPO, SimPO, KTO, ORPO), from its recipe to its report."""

from pathlib import Path
from typing import Any

from shoestring.device import Runtime
from shoestring.preferences.encode import Kind
from shoestring.preferences.policy import PolicyObjective, open_reference, warn_of_imbalance
from shoestring.preferences.recipe import PreferenceConfig
from shoestring.preferences.run import build, restore
from shoestring.preferences.trainer import ComparisonTrainer
from shoestring.train.loop import train
from shoestring.train.parallel import Ranks, require_one_process
from shoestring.train.report.display import Display
from shoestring.train.runs.lock import run_lock
from shoestring.train.tuning import load_start


def prefer(
    config: PreferenceConfig, runtime: Runtime, out: Path, *, resume: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Train on preferences in folder `out` and return the report, which is also left there as report.json.

    `out/model` is the result in Hugging Face layout with tokenizer and chat template; after a LoRA run it is
    the merged model, and `out/adapter` the adapter. `resume` continues the newest whole checkpoint of `out`;
    on a CPU the final weights are those of an unbroken run, bit for bit. Raises Stopped (saved; resume
    later), NonFiniteError (the batch is kept), DataError naming file and line, ConfigError, CheckpointError.
    """
    require_one_process(runtime, "learning from preferences")
    loss = config.loss
    kind: Kind = "answers" if loss.loss_type == "kto" else "pairs"
    files = ", ".join(Path(name).name for name in config.data)
    verb = f"Trained on preferences by `shoestring prefer` ({loss.loss_type}, beta {loss.strength})"
    with run_lock(out):
        with Display(f"{loss.loss_type}: {config.model} on {files} -> {out.name}", 1, quiet=quiet) as display:
            beginning = build(
                config, runtime, out, resume=resume, load=load_start, kind=kind, verb=verb, say=display.say
            )
            if loss.loss_type == "kto":
                warn_of_imbalance(beginning.run.data.answers, loss)
            is_resumed = beginning.latest is not None
            reference = open_reference(beginning.run, loss, display.say, is_resumed=is_resumed)
            run = restore(beginning)
        title = f"{run.name}: {len(run.data) - len(run.heldout):,} preferences"
        with Display(title, run.total_steps, unit="steps", quiet=quiet) as display:
            trainer = ComparisonTrainer(run, runtime, PolicyObjective(run, loss, reference).judge)
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
