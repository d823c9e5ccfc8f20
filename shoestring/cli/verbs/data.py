"""`shoestring data`: fetch corpora of free text, and show what of conversations will be learned."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoestring.cli.options import Json, Settings
from shoestring.cli.output import print_json, print_table
from shoestring.cli.terminal import printable

if TYPE_CHECKING:
    from shoestring.data.chat.encoding import EncodedRow
    from shoestring.data.chat.preview import Preview
    from shoestring.data.chat.recipe import ConversationConfig
    from shoestring.tokenizer.bpe import Tokenizer
    from shoestring.tokenizer.chat.template import Template

app = typer.Typer(help="Fetch and show data for training.", no_args_is_help=True, rich_markup_mode=None)
TITLES = ("file", "used", "too long", "unlearned", "bad rows", "tokens", "learned")
COUNTS = ("conversations", "too_long", "unlearned", "bad_rows", "tokens", "learned_tokens")


@app.callback()
def data() -> None:
    """Fetch and show data for training."""


@app.command()
def show(
    source: Annotated[str, typer.Argument(help="A file, a folder, org/name, or a recipe of sft (.toml).")],
    *,
    model: Annotated[str, typer.Option(help="Whose tokenizer and chat template to use.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="Conversations to print; all of them are counted.")] = 3,
    ids: Annotated[bool, typer.Option("--ids", help="Print a line for each token, with its id.")] = False,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    as_json: Json = False,
) -> None:
    """Show what will be learned of conversations, token by token, and count what is left out and why.

    Takes the settings of `sft` about data: --set learn=last, --set seq_len=2048, --set template=FILE. Colors
    are left out where NO_COLOR is set.
    """
    from dataclasses import replace

    from shoestring.data.chat.preview import preview

    config, name = _recipe(source, model, settings)
    tokenizer, template = _chat_files(name, config)
    config = replace(config, seq_len=config.seq_len or _context(name))
    result = preview(config, tokenizer, template, limit=limit)
    if as_json:
        from shoestring.cli.learned_text import tokens

        rows = [_head(item) | {"tokens": tokens(item, tokenizer)} for item in result.rows]
        print_json({"conversations": rows, "files": result.files, "problems": result.problems,
                    "remarks": result.remarks})  # fmt: skip
        return
    _print_rows(result.rows, tokenizer, ids)
    _print_counts(result, config, f"tokenizer of {name or config.tokenizer}, {template.name}")


@app.command("list")
def list_corpora(as_json: Json = False) -> None:
    """List the corpora that `data fetch` knows, with the licenses of their parts."""
    from dataclasses import asdict

    from shoestring.data.fetch.catalogue import corpora

    table = corpora()
    if as_json:
        print_json([asdict(corpus) | {"licenses": corpus.licenses} for corpus in table])
        return
    rows = [
        [corpus.name, f"{corpus.text_bytes / 1e6:,.0f} MB", ", ".join(corpus.licenses), corpus.title]
        for corpus in table
    ]
    print_table(("name", "text", "licenses", "content"), rows)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A corpus of `shoestring data list`.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Folder to write; corpora/NAME if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch a corpus as a folder of text files: one folder a package, its license in it, and manifest.json.

    Packages that are there already are kept, so an interrupted fetch goes on. Python packages come from the
    package index that pip uses, the same versions for everyone; manuals come from Debian by apt-get, in the
    versions that this machine's release has. No code of a package runs.
    """
    from shoestring.cli.weights import progress_bar
    from shoestring.data.fetch.catalogue import find_corpus
    from shoestring.data.fetch.fetch import fetch_corpus

    corpus = find_corpus(name)
    folder = out or Path("corpora") / name
    with progress_bar(f"fetching {name}") as progress:
        manifest = fetch_corpus(corpus, folder, progress)
    if as_json:
        print_json(manifest | {"folder": str(folder)})
        return
    size, count = manifest["text_bytes"] / 1e6, len(manifest["packages"])
    print(f"{folder}: {size:,.1f} MB of text in {manifest['files']:,} files of {count} packages")
    print(
        f"train on it with --set 'data.sources=[\"{folder}\"]'; {folder / 'manifest.json'} has the licenses"
    )


def _recipe(source: str, model: str, settings: list[str]) -> "tuple[ConversationConfig, str]":
    """The settings, and the name of the model whose files they need; empty where tokenizer= names others."""
    from shoestring import config as configs
    from shoestring.data.chat.recipe import ConversationConfig
    from shoestring.model.hf.hub import EMBEDDED_MODEL
    from shoestring.train.sft_recipe import SFTConfig

    if source.endswith(".toml"):
        recipe = configs.load(SFTConfig, Path(source), settings)
        return recipe, model or ("" if recipe.tokenizer else recipe.model)
    config = configs.build(ConversationConfig, configs.override({"data": [source]}, settings), where="--set")
    return config, model or ("" if config.tokenizer else EMBEDDED_MODEL)


def _chat_files(name: str, config: "ConversationConfig") -> "tuple[Tokenizer, Template]":
    """Tokenizer and chat template: the recipe's, else those of the model."""
    from shoestring.errors import TokenizerError
    from shoestring.model.hf.hub import resolve
    from shoestring.tokenizer.bpe import Tokenizer
    from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
    from shoestring.tokenizer.chat.load import load_template
    from shoestring.tokenizer.special import ASSISTANT

    folder = Path(config.tokenizer).expanduser() if config.tokenizer else resolve(name)
    tokenizer = Tokenizer.load(folder)
    try:
        place = Path(config.template).expanduser() if config.template else folder
        return tokenizer, load_template(place, tokenizer)
    except TokenizerError:
        if config.template or ASSISTANT not in tokenizer.specials:
            raise
        return tokenizer, DeepSeekTemplate()


def _context(name: str) -> int:
    """The seq_len that training would take by itself for a model."""
    from shoestring.data.chat.recipe import DEFAULT_SEQ_LEN
    from shoestring.errors import ShoestringError
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.hub import resolve
    from shoestring.model.presets import PRESETS

    if not name or name in PRESETS:
        return DEFAULT_SEQ_LEN
    try:
        return min(DEFAULT_SEQ_LEN, Checkpoint.open(resolve(name)).config.max_position_embeddings)
    except ShoestringError:  # a folder of a tokenizer alone
        return DEFAULT_SEQ_LEN


def _head(item: "EncodedRow") -> dict[str, Any]:
    num_learned = sum(item.loss_mask[1:])
    return {
        "place": item.place,
        "left_out": item.left_out,
        "problem": item.problem,
        "num_tokens": item.full_length,
        "learned_tokens": num_learned,
    }


def _print_rows(rows: "list[EncodedRow]", tokenizer: "Tokenizer", ids: bool) -> None:
    from shoestring.cli.learned_text import dim, has_colors, legend, table_of, text_of, tokens

    colors = has_colors()
    if rows and not ids:
        print(legend(colors))
    for item in rows:
        head = _head(item)
        counts = f"{head['num_tokens']:,} tokens, {head['learned_tokens']:,} learned"
        reason = f"left out ({item.left_out.replace('_', ' ')}) {item.problem}".rstrip()
        print(dim(f"\n{item.place}: {reason if item.left_out else counts}", colors))
        row = tokens(item, tokenizer)
        if row:
            print(table_of(row, tokenizer) if ids else text_of(row, colors))


def _print_counts(result: "Preview", config: "ConversationConfig", origin: str) -> None:
    print()
    rows = [[printable(f["path"]), *(f"{f[name]:,}" for name in COUNTS)] for f in result.files]
    print_table(TITLES, rows)
    for sentence in (*result.problems, *result.remarks):
        print(printable(f"note: {sentence}"))
    if result.problems and config.bad_rows == "error":
        print("note: training stops at such a row; --set bad_rows=filter leaves them out")
    if config.overlong == "error" and any(file["too_long"] for file in result.files):
        print("note: training stops at a conversation that is too long, as overlong = error says")
    print(printable(f"{origin}; learn = {config.learn}, seq_len = {config.seq_len}"))
