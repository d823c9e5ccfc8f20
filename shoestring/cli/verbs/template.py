"""`shoestring template`: check that a chat template is safe for training and serving."""

from dataclasses import asdict

import typer

from shoestring.cli.options import Json, Model
from shoestring.cli.output import print_json

app = typer.Typer(help="Check chat templates.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def template() -> None:
    """Check chat templates."""


@app.command()
def check(model: Model, *, as_json: Json = False) -> None:
    """Check a model's chat template; exit with 3 if a check fails."""
    from shoestring.errors import ThresholdError
    from shoestring.model.hf.named import open_model
    from shoestring.tokenizer.chat.check import check_template

    checkpoint = open_model(model)
    findings = check_template(checkpoint.tokenizer, checkpoint.template)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.text}")
    failures = [finding.name for finding in findings if not finding.ok]
    if failures:
        raise ThresholdError(f"the chat template of {model} fails: {', '.join(failures)}")
