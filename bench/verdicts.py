"""Verdicts of the tasks math, gsm8k and code beside those of other verifiers, on tables read by people.

    python bench/verdicts.py [--task math|gsm8k|code] [--list] [--json FILE]

The tables are tests/tasks/verdicts/*.jsonl: an answer, a reply and the verdict that is right. Beside ours
stand math-verify (its `parse` and `verify` at their defaults on the whole reply) and, where it is
installed, lm-evaluation-harness: for math the comparison of `minerva_math` on the last box, for gsm8k the
filters `strict-match` and `flexible-extract` with their normalization. For code, two public ways to compare
outputs are rebuilt: stripped lines (open-r1) and words (testlib's wcmp). Prints how often each agrees with
the tables, and its disagreements by kind with the rule that decides the kind; `--list` prints every one.
lm-evaluation-harness wants another version of antlr4 than the package: give it an environment of its own
(`pip install "lm_eval[math]"`). Exit code 3 when a verdict of ours is wrong.
"""

import argparse
import json
import logging
import re
import sys
from collections import Counter
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "tests" / "tasks" / "verdicts"


def rows_of(name):
    with open(FOLDER / f"{name}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def our_reward(name):
    """Our task's reward of a row."""
    from shoestring.tasks.gsm8k import Gsm8k
    from shoestring.tasks.math import Math
    from shoestring.tasks.task import Example

    task = {"math": Math, "gsm8k": Gsm8k}[name](path="unused")
    return lambda row: task.reward(Example(key="k", question="q", answer=row["answer"]), row["reply"])


def our_comparison(row):
    from shoestring.tasks.values.checker import same_output, same_result

    if "printed" in row:
        return same_output(row["printed"], row["right"], is_strict=row.get("strict", False))
    return same_result(row["result"], row["right"])


def math_verify_reward(row):
    """math-verify on the whole reply, as open-r1 and TRL call it; 5 seconds at most."""
    from math_verify import parse, verify

    answer = row["answer"]
    gold = parse(answer if "\\boxed" in answer else rf"\boxed{{{answer}}}")
    return float(verify(gold, parse(row["reply"]))) if gold else None


def minerva_reward(row):
    """minerva_math of lm-evaluation-harness on the last box of the reply."""
    from lm_eval.tasks.minerva_math import utils

    box = utils.last_boxed_only_string(row["reply"])
    if box is None:
        return 0.0
    content = utils.normalize_final_answer(utils.remove_boxed(box.replace("\\fbox", "\\boxed")))
    return float(utils.is_equiv(content, utils.normalize_final_answer(row["answer"])))


def gsm8k_reward(pattern, group):
    """A filter of gsm8k in lm-evaluation-harness, then its exact match with what that ignores."""

    def normal(text):
        for ignored in (",", r"\$", r"(?s).*#### ", r"\.$"):
            text = re.sub(ignored, "", text)
        return text.lower()

    def reward(row):
        found = re.findall(pattern, row["reply"])
        if not found:
            return 0.0
        match = found[group] if isinstance(found[group], str) else next(part for part in found[group] if part)
        return float(normal(match.strip()) == normal(row["answer"]))

    return reward


def same_lines(row):
    lines = [[line.strip() for line in text.strip().split("\n")] for text in (row["printed"], row["right"])]
    return lines[0] == lines[1]


def same_words(row):
    return row["printed"].split() == row["right"].split()


def verifiers(name):
    """Functions from a row to a verdict, by their names; ours is the first."""
    if name == "code":
        return {"shoestring": our_comparison, "stripped lines": same_lines, "words": same_words}
    table = {"shoestring": our_reward(name)}
    if name == "math":
        table["math-verify"] = math_verify_reward
        if has_lm_eval():
            table["lm-eval minerva"] = minerva_reward
    else:
        table["lm-eval strict"] = gsm8k_reward(r"#### (\-?[0-9\.\,]+)", 0)
        table["lm-eval flexible"] = gsm8k_reward(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)
        table["math-verify"] = math_verify_reward
    return table


def has_lm_eval():
    try:
        from lm_eval.tasks.minerva_math import utils  # noqa: F401
    except Exception as error:  # it checks the versions of its libraries by assertions
        print(
            f"lm-evaluation-harness is left out: {str(error)[:200] or type(error).__name__}", file=sys.stderr
        )
        return False
    return True


def verdict(verifier, row):
    """The verdict of a verifier; what it raises counts as none."""
    try:
        return verifier(row)
    except Exception:
        return None


def right_verdict(row):
    return row["reward"] if "reward" in row else row["same"]


def compare(name, is_listed):
    """Print a table's agreement with each verifier; returns the results by name."""
    kinds = json.loads((FOLDER / "kinds.json").read_text(encoding="utf-8"))[name]
    rows = [row for row in rows_of(name) if "program" not in row]
    results = {}
    for title, verifier in verifiers(name).items():
        mine = [row for row in rows if title not in ("stripped lines", "words") or "printed" in row]
        wrong = [(row, v) for row in mine if (v := verdict(verifier, row)) != right_verdict(row)]
        rewarded = sum(bool(v) for _, v in wrong)
        results[title] = {"pairs": len(mine), "agree": len(mine) - len(wrong), "wrongly_rewarded": rewarded}
        print(f"{name:6} {title:17} agrees on {len(mine) - len(wrong)} of {len(mine)}; "
              f"rewards {rewarded} wrong replies, refuses {len(wrong) - rewarded} right ones")  # fmt: skip
        for kind, count in Counter(row["kind"] for row, _ in wrong).most_common():
            print(f"    {count:3} x {kind}: {kinds[kind]}")
            for row, value in wrong if is_listed else ():
                if row["kind"] == kind:
                    print(f"          {value}: {json.dumps(row, ensure_ascii=False)}")
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", choices=["math", "gsm8k", "code"])
    parser.add_argument("--list", action="store_true", help="print every disagreement")
    parser.add_argument("--json", type=Path, help="write the numbers to a file")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    results = {
        name: compare(name, args.list) for name in ([args.task] if args.task else ["math", "gsm8k", "code"])
    }
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(3 if any(r["shoestring"]["agree"] < r["shoestring"]["pairs"] for r in results.values()) else 0)


if __name__ == "__main__":
    main()
