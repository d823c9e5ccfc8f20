"""Check an installed wheel: without a compiler its kernels are loaded, and the model in it answers."""

import os
import sys
from pathlib import Path

QUESTION = "make 24 from 3, 8, 1"


def main() -> int:
    """Print the file of the kernels and an answer; returns the exit status."""
    os.environ["PATH"] = os.environ["CXX"] = ""
    from shoestring import LLM
    from shoestring.kernels import cpu_build

    library = cpu_build.library()
    if library is None or Path(library._name).parent != cpu_build.PREBUILT:
        print(f"the kernels in {cpu_build.PREBUILT} were not loaded", file=sys.stderr)
        return 1
    answer = LLM("mini").chat([{"role": "user", "content": QUESTION}])[0].outputs[0].text
    print(f"{Path(library._name).name}: {answer}")
    return 0 if answer else 1


if __name__ == "__main__":
    sys.exit(main())
