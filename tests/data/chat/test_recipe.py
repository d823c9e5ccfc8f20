"""Settings of conversations: what is refused, and what reaches the reading of them."""

import pytest

from shoestring import config as configs
from shoestring.data.chat.mixture import DataSource
from shoestring.data.chat.recipe import ConversationConfig
from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate


def build(*settings: str) -> ConversationConfig:
    return configs.build(ConversationConfig, configs.override({}, settings), where="--set")


def test_names_and_tables_are_sources():
    config = build('data=["a.jsonl", {path="org/name:train", weight=2, columns={prompt="q"}}]')
    assert config.data == ("a.jsonl", DataSource(path="org/name:train", weight=2.0, columns={"prompt": "q"}))


def test_columns_of_the_recipe_are_for_sources_without_their_own(tmp_path):
    (tmp_path / "a.csv").write_text("q,a\n1+1,2\n")
    (tmp_path / "b.csv").write_text("ask,a\n1+1,2\n")
    own = f'{{path="{tmp_path}/b.csv", columns={{prompt="ask", completion="a"}}}}'
    config = build(
        f'data=["{tmp_path}/a.csv", {own}]', "columns.prompt=q", "columns.completion=a", "seq_len=60"
    )
    tokenizer = Tokenizer.train(["1+1 2"] * 5, 300)
    data = config.load(tokenizer, DeepSeekTemplate())
    assert len(data) == 2
    assert len(set(data.digests.tolist())) == 1


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data=[]", "data is empty"),
        ("learn=first", "learn = 'first'"),
        ("thinking=none", "thinking = 'none'"),
        ("overlong=cut", "overlong = 'cut'"),
        ("bad_rows=skip", "bad_rows = 'skip'"),
        ("columns.promt=q", "columns has no 'promt'"),
        ("seq_len=-1", "seq_len = -1"),
        ("heldout_fraction=1.0", "heldout_fraction = 1.0"),
        ('data=[{path="x", wight=2}]', r"no 'data\[0\].wight'; DataSource has path, weight, columns"),
        ('data=[{path="x", weight=0}]', "weight = 0.0 of x"),
    ],
)
def test_wrong_settings_are_named(setting, words):
    with pytest.raises(ConfigError, match=words):
        build('data=["a"]', setting)


def test_held_out_files_and_a_held_out_share_are_one_or_the_other():
    with pytest.raises(ConfigError, match="leave out heldout_fraction"):
        build('data=["a"]', 'heldout=["b"]', "heldout_fraction=0.1")
