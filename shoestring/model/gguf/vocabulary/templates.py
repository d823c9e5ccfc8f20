"""Chat templates in GGUF metadata: the one that is used, and others with names, such as `tool_use`."""

import logging
import re
from pathlib import Path
from typing import Any, TypeGuard

from shoestring.durable import write_atomic
from shoestring.model.gguf.file import GGUFFile
from shoestring.tokenizer.chat.deepseek import TEMPLATE_FILE
from shoestring.tokenizer.chat.load import MAX_TEMPLATE_BYTES, OTHER_TEMPLATES, named_templates

log = logging.getLogger(__name__)

KEY = "tokenizer.chat_template"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def save_templates(file: GGUFFile, folder: Path) -> None:
    """Write the template as chat_template.jinja, and the others into a folder beside it, by their names."""
    if _is_template(template := file.metadata.get(KEY, file.metadata.get(f"{KEY}.default"))):
        write_atomic(folder / TEMPLATE_FILE, template)
    others = {
        key.removeprefix(f"{KEY}."): value
        for key, value in file.metadata.items()
        if key.startswith(f"{KEY}.") and key != f"{KEY}.default" and _is_template(value)
    }
    texts = {name: text for name, text in others.items() if _NAME.fullmatch(name)}
    if texts:
        (folder / OTHER_TEMPLATES).mkdir()
    for name, text in texts.items():
        write_atomic(folder / OTHER_TEMPLATES / f"{name}.jinja", text)
    if others:
        log.warning(
            "%s has the chat templates %s beside %s; they are in %s, and commands use none of them",
            *(file.path, ", ".join(texts), "the default" if template else "no default", OTHER_TEMPLATES),
        )


def write_templates(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Metadata of the templates in a folder and in its tokenizer_config.json."""
    templates = {n: t for n, t in named_templates(folder, settings).items() if _is_template(t)}
    default = templates.pop("default", None)
    metadata: dict[str, Any] = {f"{KEY}.{name}": text for name, text in templates.items()}
    if templates:
        metadata["tokenizer.chat_templates"] = [*templates]
    return metadata | ({KEY: default} if default else {})


def _is_template(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value.encode()) <= MAX_TEMPLATE_BYTES
