"""RecipeConfig: stages that use the results of earlier ones, such as R1's pipeline, in one file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shoestring.errors import ConfigError
from shoestring.train.runs.recipe import check_tags

KINDS = ("corpus", "sft", "grpo", "collect", "distill", "prefer", "reward_model")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage: a name, and exactly one table of settings, named after the kind of stage.

    A text that begins with @ is a path in the run's folder: "@base/model" is the model of stage `base`.
    """

    name: str
    """The name of the stage and of its folder."""
    title: str = ""
    """A description for the report."""
    prompt: dict[str, Any] = field(default_factory=dict)
    """PromptStyle for the scores of its model, in place of the tasks' own."""
    corpus: dict[str, Any] | None = None
    """CorpusStage: conversations to pretrain on, a tokenizer, and preference pairs."""
    sft: dict[str, Any] | None = None
    """SFTConfig: supervised fine-tuning; from a preset's name, pretraining."""
    grpo: dict[str, Any] | None = None
    """GRPOConfig: reinforcement learning."""
    collect: dict[str, Any] | None = None
    """CollectStage: rejection sampling."""
    distill: dict[str, Any] | None = None
    """DistillConfig: a student of an earlier stage."""
    prefer: dict[str, Any] | None = None
    """PreferenceConfig: learning from preferences."""
    reward_model: dict[str, Any] | None = None
    """RewardModelConfig: a reward model, such as one for reward.model of a later stage."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"a stage is named {self.name!r}; take small letters, digits, '-', '_' and '.'")
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ConfigError(
                f"stage {self.name} has {' and '.join(kinds) or 'no settings'}; "
                f"give exactly one of the tables {', '.join(KINDS)}"
            )

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = getattr(self, self.kind)
        return settings


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Scores of each stage's model: fields of TaskEvalConfig by task, the main one first."""

    base: str = ""
    """A model to score before the first stage, for comparison: that which the recipe begins with."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """Stages in their order, and the scores of their models."""

    title: str = ""
    seed: int = 0
    """Seed of every stage that has none of its own."""
    stages: tuple[Stage, ...]
    score: ScoreConfig = field(default_factory=ScoreConfig)
    note: str = ""
    """A text about the run, for whoever looks at it later."""
    tags: tuple[str, ...] = ()
    """Words by which runs are found and compared."""

    CAN_CHANGE = frozenset({"note", "tags"})

    def __post_init__(self) -> None:
        check_tags(self.tags)
        names = [stage.name for stage in self.stages]
        if not names:
            raise ConfigError("the recipe has no stages; give at least one [[stages]]")
        if len(set(names)) < len(names):
            raise ConfigError(f"two stages have the same name: {', '.join(names)}")
        for place, stage in enumerate(self.stages):
            for path in _references(stage.settings):
                if path[1:].split("/")[0] not in names[:place]:
                    raise ConfigError(f"stage {stage.name} takes {path}, which no earlier stage makes")


def located(value: Any, folder: str) -> Any:
    """Settings with every "@path" made a path in `folder`."""
    if isinstance(value, str):
        return f"{folder}/{value[1:]}" if value.startswith("@") else value
    if isinstance(value, Mapping):
        return {name: located(item, folder) for name, item in value.items()}
    return [located(item, folder) for item in value] if isinstance(value, list | tuple) else value


def _references(value: Any) -> list[str]:
    """Every "@path" in settings."""
    if isinstance(value, str):
        return [value] if value.startswith("@") else []
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [path for item in items for path in _references(item)]
