"""The `shoestring` command: its subcommands, its exit codes, and one sentence for every error."""

import logging
import os
import sys

import typer
from typer.exceptions import TyperException

from shoestring.cli.terminal import printable
from shoestring.cli.verbs import (
    admin,
    bench,
    data,
    database,
    demo,
    doctor,
    evaluate,
    export,
    models,
    quantize,
    run,
    runs,
    serve,
    task,
    template,
    tokenizer,
)
from shoestring.cli.verbs.training import distill, prefer, pretrain, reward_model, rl, sft
from shoestring.errors import ShoestringError

app = typer.Typer(
    name="shoestring",
    help="The DeepSeek system, whole and open: train, evaluate and run models, from a laptop to a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("pretrain")(pretrain.pretrain)
app.command("sft")(sft.sft)
app.command("prefer")(prefer.prefer)
app.command("reward-model")(reward_model.reward_model)
app.command("rl")(rl.rl)
app.command("distill")(distill.distill)
app.add_typer(runs.app, name="runs")
app.command("eval")(evaluate.evaluate)
app.command("run")(run.run)
app.command("serve")(serve.serve)
app.add_typer(admin.app, name="admin")
app.command("show")(models.show)
app.command("list")(models.list_models)
app.command("pull")(models.pull)
app.command("quantize")(quantize.quantize)
app.command("merge")(export.merge)
app.command("export")(export.export)
app.command("import")(export.import_model)
app.add_typer(database.app, name="database")
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(template.app, name="template")
app.add_typer(task.app, name="task")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line and exit with its code; docs/reference.md lists the exit codes."""
    sys.exit(exit_code(sys.argv[1:]))


def exit_code(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error becomes one sentence on stderr."""
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
