"""Pictures of a recipe's run: which figures they show."""

import pytest

from shoestring.rl import pictures

plt = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def quick_figures():
    """Figures as they are."""


ROWS = [
    {"name": "corpus"},
    {"name": "base", "pass_at_1": 0.1, "intervals": {"pass_at_1": (0.05, 0.2)}, "mean_thinking_tokens": 0.0},
    {"name": "rl", "pass_at_1": 0.6, "intervals": {"pass_at_1": (0.5, 0.7)}, "mean_thinking_tokens": 0.0},
]


@pytest.fixture
def figure(monkeypatch, tmp_path):
    """Draws the stages and returns the figure."""
    drawn = []
    monkeypatch.setattr(pictures.figures, "save", lambda out, build: drawn.append(build()))

    def draw(rows):
        pictures.draw_stages(rows, tmp_path / "stages.png")
        return drawn[-1]

    return draw


def test_only_figures_that_a_model_has_are_drawn(figure):
    (axes,) = figure(ROWS).axes
    assert axes.get_legend_handles_labels()[1] == ["pass@1"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["base", "rl"]
    centers = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    assert centers == pytest.approx([0, 1])


def test_a_label_stands_over_its_interval(figure):
    (axes,) = figure(ROWS).axes
    places = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert places["10%"] > 0.2
    assert places["60%"] > 0.7


def test_thinking_has_a_panel_where_there_is_some(figure):
    rows = [*ROWS, {**ROWS[2], "name": "zero", "greedy": 0.8, "mean_thinking_tokens": 12.0}]
    above, below = figure(rows).axes
    assert above.get_legend_handles_labels()[1] == ["pass@1", "greedy"]
    assert [bar.get_height() for bar in below.patches] == [0.0, 0.0, 12.0]
