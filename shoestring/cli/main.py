"""The `shoestring` command: its start, its exit codes, and one sentence for every error."""

import gc
import logging
import os
import sys

from shoestring.cli.start import read_torch
from shoestring.cli.terminal import printable
from shoestring.errors import ShoestringError


def main() -> None:
    """Run the command line and exit with its code; docs/reference.md lists the exit codes."""
    read_torch(sys.argv[1:])
    code = exit_code(sys.argv[1:])
    gc.freeze()  # else Python looks once more through every module of PyTorch before it ends: 0.3 s
    sys.exit(code)


def exit_code(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error becomes one sentence on stderr."""
    import typer  # here, so that PyTorch's library is read beside it
    from typer.exceptions import TyperException

    from shoestring.cli.application import app

    logging.basicConfig(
        level=os.environ.get("SHOESTRING_LOG", "WARNING"), format="%(levelname)s: %(message)s"
    )
    try:
        result = app(arguments, prog_name="shoestring", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ShoestringError as error:
        return _fail(str(error), error.exit_code)
    except TyperException as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        return _fail(f"{text} (see `shoestring --help`)" if text else "see `shoestring --help`", 2)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return 0
    except OSError as error:
        return _fail(f"{error.strerror or error}: {error.filename or 'a file'}", 1)
    except Exception as error:
        if os.environ.get("SHOESTRING_DEBUG"):
            raise
        text = f"a bug in shoestring ({type(error).__name__}: {error})"
        return _fail(f"{text}; SHOESTRING_DEBUG=1 shows where, please report it", 1)


def _fail(text: str, code: int) -> int:
    print(f"shoestring: {printable(text)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
