"""The file that `shoestring task new` writes: a whole small task, explained line by line, with a test."""

import keyword
import re
from pathlib import Path

from shoestring.durable import write_atomic
from shoestring.errors import ConfigError

TEMPLATE = '''"""A task of your own: how many letters has a word?

Look at its problems:  shoestring task show FILE
Try a reply:           shoestring task show FILE --reply "It has 5 letters."
Test everything:       shoestring task check FILE
Train a model on it:   shoestring rl --task FILE --set model=MODEL
Score a model on it:   shoestring eval MODEL --task FILE
"""

import random
import re

from shoestring.tasks.task import Example, Task

WORDS = (
    "apple bread cloud dance earth flower garden house island jungle kitchen lemon mountain night ocean "
    "paper queen river summer table umbrella village water yellow zebra bridge candle dragon engine forest"
).split()


class CLASS(Task):
    """Problems, and a reward for a reply to one. Change both methods into those of your task."""

    max_turns = 1
    """Turns of the model in a conversation; more than 1 where it may call tools (tools = [a_function])."""

    def examples(self, split, seed):
        """Yield the problems: those of the split "train" or "test", in an order that the seed decides.

        No problem may be in both splits; here every fifth word is for tests. A list that ends is begun
        again for training. The answer is all that the reward needs: numbers, texts, lists, dictionaries.
        """
        words = [word for number, word in enumerate(WORDS) if (number % 5 == 0) == (split == "test")]
        random.Random(f"{split} {seed}").shuffle(words)
        for word in words:
            yield Example(question=f"How many letters has the word {word}?", answer=len(word))

    def reward(self, example, text):
        """Return 1 for a right reply and 0 for a wrong one, or any number between them.

        `text` is the whole reply; what the model thought stands before "</think>". Any text may come: an
        error here is counted, and says its line. Return None where you cannot tell.
        """
        answer = text.rpartition("</think>")[2]
        numbers = re.findall("[0-9]+", answer)
        return 1.0 if numbers and numbers[-1] == str(example.answer) else 0.0


def test_rewards():
    """Check the reward on replies that you know; `pytest FILE` runs this."""
    task, example = CLASS(), Example(question="How many letters has the word apple?", answer=5)
    assert task.reward(example, "It has 5 letters.") == 1.0
    assert task.reward(example, "<think>4?</think> 5") == 1.0
    assert task.reward(example, "It has 6 letters.") == 0.0
    assert task.reward(example, "") == 0.0
    train = {example.question for example in task.examples("train", 0)}
    assert not train & {example.question for example in task.examples("test", 0)}
'''


def write_template(name: str) -> Path:
    """Write the template as `name` (a path, or a word to which .py is added); returns the path.

    Raises ConfigError for a file that is there, and for a name of which no class can be called.
    """
    path = Path(name).expanduser()
    path = path if path.suffix == ".py" else path.with_name(path.name + ".py")
    cls = "".join(word.capitalize() for word in re.findall(r"[A-Za-z0-9]+", path.stem))
    if not cls.isidentifier() or keyword.iskeyword(cls):
        raise ConfigError(f"{path.stem!r} is no name for a task; take letters, digits and _, such as my_task")
    if path.exists():
        raise ConfigError(f"{path} is there already; take another name, or edit it")
    write_atomic(path, TEMPLATE.replace("CLASS", cls).replace("FILE", str(path)))
    return path
