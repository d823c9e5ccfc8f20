"""Loading of the chat template in a checkpoint folder."""

from pathlib import Path
from typing import Any

from shoestring.errors import TokenizerError
from shoestring.tokenizer.bpe import CONFIG_FILE, Tokenizer
from shoestring.tokenizer.chat.deepseek import JINJA, TEMPLATE_FILE, DeepSeekTemplate
from shoestring.tokenizer.chat.jinja import JinjaTemplate
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.definition import read_json

MAX_TEMPLATE_BYTES = 1 << 20
OTHER_TEMPLATES = "additional_chat_templates"
"""The folder of further templates, which have names."""


def load_template(path: str | Path, tokenizer: Tokenizer, *, time_limit_s: float = 1.0) -> Template:
    """Load a template: a file, or a folder's chat_template.jinja or chat_template in tokenizer_config.json.

    A template that DeepSeekTemplate saved is loaded as DeepSeekTemplate. Raises TokenizerError when there is
    none or it cannot be read.
    """
    path = Path(path)
    file = path / TEMPLATE_FILE if path.is_dir() else path
    if file.exists():
        source, name = _read(file), str(file)
    else:
        source, name = _from_config(path / CONFIG_FILE), str(path / CONFIG_FILE)
    if source == JINJA:
        return DeepSeekTemplate()
    if source == JINJA.replace("keep_thinking = true", "keep_thinking = false"):
        return DeepSeekTemplate(keep_thinking=False)
    return JinjaTemplate(source, tokenizer, name=name, time_limit_s=time_limit_s)


def template_of(source: str, tokenizer: Tokenizer) -> Template:
    """A template from its Jinja text, or from a file that is named instead of it."""
    if "{" in source:
        return JinjaTemplate(source, tokenizer, name="chat_template")
    file = Path(source)
    if not file.is_file():
        raise TokenizerError(f"chat_template = {source[:100]!r} is neither a template nor the name of a file")
    return load_template(file, tokenizer)


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_TEMPLATE_BYTES:
            raise TokenizerError(
                f"{file} is larger than {MAX_TEMPLATE_BYTES >> 10} KiB, so it is not a chat template"
            )
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise TokenizerError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TokenizerError(f"{file} is not UTF-8 text, so it is not a chat template") from None


def named_templates(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """The templates of a folder by name, the one without a name as `default`.

    `settings` is the content of tokenizer_config.json, where they are one text or a list; files come first.
    """
    source: Any = settings.get("chat_template")
    if isinstance(source, list):
        pairs = [(entry.get("name"), entry.get("template")) for entry in source if isinstance(entry, dict)]
    else:
        pairs = [("default", source)]
    templates = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    templates |= {path.stem: _read(path) for path in sorted((folder / OTHER_TEMPLATES).glob("*.jinja"))}
    if (folder / TEMPLATE_FILE).is_file():
        templates["default"] = _read(folder / TEMPLATE_FILE)
    return templates


def _from_config(file: Path) -> str:
    """Read `chat_template`: one text, or a list of templates with names, of which `default` is used."""
    templates = named_templates(file.parent, read_json(file, CONFIG_FILE) if file.exists() else {})
    if "default" not in templates:
        others = f" named default (it has {', '.join(templates)})" if templates else ""
        raise TokenizerError(f"{file.parent} has no chat template{others}; add one as {TEMPLATE_FILE}")
    return templates["default"]
