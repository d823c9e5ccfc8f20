"""A run's report as one web page that loads nothing: tables, pictures, and escaped text.

Samples are texts of a model and may be hostile: everything is escaped, and the page's policy forbids scripts,
and styles and pictures from elsewhere.
"""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from shoestring.durable import write_atomic
from shoestring.errors import DataError

_DEPTH_LIMIT = 4
_MAX_ROWS = 100
_LONG = 80  # characters from which a text gets a box of its own
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --faint: #666b73; --page: #fbfbfa; --box: #fff;
  --line: #e2e3e5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6e9; --faint: #9aa0a8; --page: #16181b;
  --box: #1e2125; --line: #33373d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 62rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1.5rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
h3, h4 { font-size: .95rem; margin: 1.25rem 0 .4rem; color: var(--faint); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); gap: .75rem;
  margin: 0; }
.figures div { background: var(--box); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem .9rem; }
.figures dt { color: var(--faint); font-size: .8rem; }
.figures dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--box); font-size: .9rem; }
th, td { border: 1px solid var(--line); padding: .4rem .65rem; text-align: left; vertical-align: top;
  overflow-wrap: break-word; }
thead th { white-space: nowrap; }
th { color: var(--faint); font-weight: 500; }
tbody th { width: 16rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { margin: 0; min-width: 9rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .82rem/1.5 ui-monospace, monospace; }
img { display: block; width: 100%; height: auto; background: #fff; border: 1px solid var(--line);
  border-radius: .5rem; margin: 1.25rem 0 0; }
"""


def write_html(report: Mapping[str, Any], out_html: Path, pictures: Sequence[Path] = ()) -> None:
    """Write `report` (JSON-like, as in report.json) as a page with its pictures (PNG) inside.

    "title" becomes the heading, other single values the figures at the top, each object or list a section of
    its own (a list of objects: one table). Raises DataError for a picture that is not a PNG, StorageError.
    """
    title = _text(report.get("title") or "Training run")
    single = {name: value for name, value in report.items() if name != "title" and _is_single(value)}
    parts = [f"<h1>{title}</h1>", _figures(single)]
    parts += [f'<img alt="{_label(path.stem)}" src="{_data_uri(path)}">' for path in pictures]
    for name, value in report.items():
        if name != "title" and name not in single and value:
            parts.append(f"<h2>{_label(name)}</h2>{_section(value, 3)}")
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body>\n{chr(10).join(part for part in parts if part)}\n</body></html>\n"
    )
    write_atomic(out_html, page)


def _figures(values: Mapping[str, Any]) -> str:
    cells = (f"<div><dt>{_label(name)}</dt><dd>{_value(value)}</dd></div>" for name, value in values.items())
    return f'<dl class="figures">{"".join(cells)}</dl>' if values else ""


def _section(value: Any, level: int) -> str:
    """A table for an object, one for a list of objects, and further objects below under headings."""
    if level > _DEPTH_LIMIT + 1 or _is_leaf(value):
        return _block(value)
    if isinstance(value, Mapping):
        rows = {name: item for name, item in value.items() if _is_leaf(item)}
        body = "".join(
            f"<tr><th>{_label(name)}</th><td>{_block(item)}</td></tr>" for name, item in rows.items()
        )
        table = f'<div class="scroll"><table><tbody>{body}</tbody></table></div>' if rows else ""
        tag = f"h{min(level, 4)}"
        deeper = (
            f"<{tag}>{_label(name)}</{tag}>{_section(item, level + 1)}"
            for name, item in value.items()
            if name not in rows
        )
        return table + "".join(deeper)
    columns = list(dict.fromkeys(name for row in value if isinstance(row, Mapping) for name in row))
    head = "".join(f"<th>{_label(name)}</th>" for name in columns)
    body = "".join(f"<tr>{_row(row, columns)}</tr>" for row in value[:_MAX_ROWS])
    if len(value) > _MAX_ROWS:
        body += f'<tr><td colspan="{len(columns)}">and {len(value) - _MAX_ROWS:,} more</td></tr>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(row: Any, columns: Sequence[str]) -> str:
    if not isinstance(row, Mapping):
        return f'<td colspan="{len(columns)}">{_block(row)}</td>'
    return "".join(_cell(row[name]) if name in row else "<td></td>" for name in columns)


def _cell(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f'<td class="number">{_value(value)}</td>' if is_number else f"<td>{_block(value)}</td>"


def _block(value: Any) -> str:
    if isinstance(value, str) and (len(value) > _LONG or "\n" in value):
        return f"<pre>{_text(value)}</pre>"
    if isinstance(value, list | tuple) and all(_is_single(item) for item in value):
        return ", ".join(_value(item) for item in value)
    return (
        _value(value)
        if _is_single(value)
        else f"<pre>{_text(json.dumps(value, indent=1, default=str))}</pre>"
    )


def _value(value: Any) -> str:
    if value is None:
        return "unavailable"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return (
            f"{value:,}" if abs(value) < 10**15 else f"{float(value):.4g}" if abs(value) < 10**300 else "huge"
        )
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    return _text(str(value))


def _is_single(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONG and "\n" not in value
    return value is None or isinstance(value, bool | int | float)


def _is_leaf(value: Any) -> bool:
    """Return whether a value fits one cell: a single value, any text, or a list of single values."""
    if isinstance(value, list | tuple):
        return all(_is_single(item) for item in value)
    return _is_single(value) or not isinstance(value, Mapping)


def _label(name: object) -> str:
    return _text(str(name).replace("_", " "))


def _text(text: object) -> str:
    """Escaped text; control characters and lone surrogates, which HTML does not allow, are replaced."""
    clean = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(text))
    return escape(clean, quote=True)


def _data_uri(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the picture {path}: {error.strerror}") from None
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise DataError(f"{path} is not a PNG picture; the report takes no other kind")
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
