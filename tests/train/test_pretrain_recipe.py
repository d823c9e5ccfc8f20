import pytest

from shoestring import config as configs
from shoestring.data.corpus import DataConfig
from shoestring.errors import ConfigError
from shoestring.train.optim import OptimConfig
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.report.receipt import Price
from shoestring.train.schedule import ScheduleConfig


def test_a_recipe_comes_back_from_its_file(tmp_path):
    recipe = PretrainConfig(
        model="deepseek-v3",
        watts=65.0,
        data=DataConfig(sources=("a", "b/*.md"), fim_rate=0.25),
        optim=OptimConfig(name="muon", lr=3e-4),
        schedule=ScheduleConfig(warmup_ratio=0.02),
        price=Price(per_hour=1.5, source="a list"),
    )
    configs.save(recipe, tmp_path / "config.toml")
    assert configs.load(PretrainConfig, tmp_path / "config.toml") == recipe


def test_overrides_reach_every_part(tmp_path):
    configs.save(PretrainConfig(), tmp_path / "r.toml")
    settings = [
        "optim.lr=3e-4",
        "optim.name=muon",
        "data.sources=['x']",
        "schedule.warmup_ratio=0",
        "watts=20",
    ]
    recipe = configs.load(PretrainConfig, tmp_path / "r.toml", settings)
    assert (recipe.optim.lr, recipe.optim.name, recipe.data.sources) == (3e-4, "muon", ("x",))
    assert (recipe.schedule.warmup_ratio, recipe.watts) == (0.0, 20.0)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("total_tokens=0", "total_tokens = 0 must be at least 1"),
        ("seq_len=-1", "seq_len = -1 must be at least 1"),
        ("eval_tokens=0", "eval_tokens = 0 must be at least 1"),
        ("save_every=0", "save_every = 0 must be at least 1"),
        ("seed=-1", "seed = -1"),
        ("balance_alpha=-0.1", "balance_alpha = -0.1"),
        ("balance_alpha=nan", "balance_alpha = nan"),
        ("watts=0", "watts = 0"),
        ("watts=inf", "watts = inf"),
        ("optim.name=sgd", "optim.name = 'sgd'"),
        ("optim.lr=0", "optim.lr = 0"),
        ("schedule.warmup_ratio=0.9", "warmup_ratio <= constant_until"),
        ("data.fim_rate=2", "fim_rate = 2"),
        ("precision=fp16", "precision = 'fp16'"),
        ("batch_size=many", "batch_size = 'many'"),
        ("optim.learning_rate=1", "no 'optim.learning_rate'; OptimConfig has name, lr"),
    ],
)
def test_a_wrong_value_is_refused_by_name(setting, words):
    with pytest.raises(ConfigError) as caught:
        configs.build(PretrainConfig, configs.override({}, [setting]), where="--set")
    assert words in str(caught.value)
