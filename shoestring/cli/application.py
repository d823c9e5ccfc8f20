"""The subcommands of `shoestring`, in the order of its help."""

import typer

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
from shoestring.cli.verbs.costs import plan, receipt
from shoestring.cli.verbs.training import distill, prefer, pretrain, reward_model, rl, sft

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
app.command("plan")(plan.plan)
app.add_typer(receipt.app, name="receipt")
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
