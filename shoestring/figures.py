"""Plots in one style; the only module that imports matplotlib."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.durable import write_atomic
from shoestring.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Axes", "Figure", "check_type", "logarithmic", "new_figure", "save", "with_amounts"]

# Okabe and Ito's palette, whose colors are distinct for color-blind readers too.
BLUE, GREEN, RED, PURPLE, SKY = "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, FAINT, GRID = "#222222", "#666666", "#E4E4E4"
DPI = 150
LAYOUT: Any = "constrained"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#999999",
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "shoestring",
    "text.parse_math": False,
}


def save(out: Path, build: "Callable[[], Figure]") -> None:
    """Write the figure that `build` returns to `out` (.png or .svg); equal figures give equal bytes.

    Raises ConfigError for another file type, MissingDependencyError without matplotlib, StorageError.
    """
    check_type(out)
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingDependencyError("curves need matplotlib: pip install 'shoestring-llm[plots]'") from None
    picture = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if out.suffix == ".svg" else {"Software": None}
    with mpl.rc_context(_STYLE):
        build().savefig(picture, format=out.suffix[1:], dpi=DPI, metadata=metadata)
    write_atomic(out, picture.getvalue())


def check_type(out: Path) -> None:
    """Raise ConfigError for another file type than .png and .svg."""
    if out.suffix not in (".png", ".svg"):
        raise ConfigError(f"cannot draw curves into {out.name}: the name must end in .png or .svg")


def new_figure(width: float, height: float, title: str) -> "Figure":
    """Empty figure with a title; width and height are in inches."""
    from matplotlib.figure import Figure  # not pyplot: that keeps global state

    figure = Figure(figsize=(width, height), layout=LAYOUT)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def with_amounts(axes: "Axes") -> None:
    """Write large numbers on the x axis with a suffix: 1.2M for 1,200,000."""
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def logarithmic(axes: "Axes") -> None:
    """Make the y axis logarithmic, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
