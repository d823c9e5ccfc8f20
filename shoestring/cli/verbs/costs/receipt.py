"""`shoestring receipt`: what a run took, beside its plan; checked, and written as a bill or a model card."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from shoestring.cli.options import Device, Json
from shoestring.cli.output import amount, print_fields, print_json, print_table
from shoestring.cli.terminal import printable

if TYPE_CHECKING:
    from shoestring.receipts.read import StageReceipt

Run = Annotated[Path, typer.Argument(help="A run's folder.")]
Out = Annotated[Path | None, typer.Option(help="The file to write; else it is printed.")]


class ReceiptGroup(TyperGroup):
    """Its commands, and `shoestring receipt RUN` for `shoestring receipt show RUN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    help="Print what a run took, verify it, and write its bill of materials or model card.",
    cls=ReceiptGroup,
    no_args_is_help=True,
)


@app.command("show")
def show(run: Run, *, as_json: Json = False) -> None:
    """Print a run's FLOPs, time, energy, CO2, water and money, and its plan beside what it took."""
    from shoestring.receipts.compare import planned_and_measured
    from shoestring.receipts.read import receipts

    rows = [(row, planned_and_measured(row)) for row in receipts(run)]
    if as_json:
        print_json([{"stage": row.stage, "receipt": row.content, "plan": plan} for row, plan in rows])
        return
    for row, plan in rows:
        _print_receipt(row)
        if plan:
            titles = ("figure", "planned", "measured", "difference", "planned by")
            cells = [
                [
                    *(name, amount(figure["planned"], "G"), amount(figure["measured"], "G")),
                    *(f"{figure['difference']:+.1%}", figure["assumption"]),
                ]
                for name, figure in plan.items()
            ]
            print_table(titles, cells)


@app.command("verify")
def verify(
    run: Run,
    *,
    rerun: Annotated[bool, typer.Option("--rerun", help="Take the last steps again: their loss.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compute hashes, FLOPs and sums anew; exit with 3 if anything differs from the receipt."""
    from dataclasses import asdict

    from shoestring.errors import ThresholdError
    from shoestring.receipts import verify as checks
    from shoestring.receipts.read import receipts

    rows = []
    for receipt in receipts(run):
        results = checks.verify(receipt)
        if rerun:
            from shoestring.device import choose
            from shoestring.receipts.rerun import rerun as take_last_steps

            results.append(take_last_steps(receipt, choose(device)))
        rows += [(receipt.stage, result) for result in results]
    if as_json:
        print_json([{"stage": stage, **asdict(result)} for stage, result in rows])
    else:
        words = {True: "right", False: "WRONG", None: "unknown"}
        cells = [[*([stage] if stage else []), r.name, words[r.is_right], r.detail] for stage, r in rows]
        for row in cells:
            print(printable("  ".join(f"{cell:<10}" for cell in row)))
    wrong = [result for _, result in rows if result.is_right is False]
    if wrong:
        names = ", ".join(dict.fromkeys(result.name for result in wrong))
        raise ThresholdError(f"{run} is not what its receipt says: {names}")


@app.command("bom")
def bom(run: Run, *, out: Out = None) -> None:
    """Write a run's bill of materials: CycloneDX 1.6 with model cards, JSON."""
    from shoestring.receipts.bom import bill_of_materials
    from shoestring.receipts.read import receipts

    document = bill_of_materials(run.resolve().name, receipts(run))
    _write(json.dumps(document, indent=2) + "\n", out)


@app.command("card")
def card(run: Run, *, out: Out = None) -> None:
    """Write a run's model card for Hugging Face, with data, licenses, lineage and costs."""
    from shoestring.receipts.card import model_card
    from shoestring.receipts.read import receipts

    _write(model_card(run.resolve().name, receipts(run)), out)


def _write(text: str, out: Path | None) -> None:
    from shoestring.durable import write_atomic

    if out is None:
        print(printable(text) if not text.startswith("{") else text, end="")
        return
    write_atomic(out, text)
    print(f"wrote {out}")


def _print_receipt(receipt: "StageReceipt") -> None:
    content = receipt.content
    energy, money, world = (content.get(name) or {} for name in ("energy", "money", "footprint"))
    flops, total = content.get("flops", {}), content["train_flops"]
    parts = ", ".join(f"{name} {value / total:.0%}" for name, value in flops.items() if value and total)
    joules, rent = energy.get("joules"), money.get("machine_rent")
    machine = content.get("machine", {})
    fields = {
        "stage": receipt.stage or None,
        "training": f"{total:.4g} FLOPs" + (f": {parts}" if parts else ""),
        "tokens": f"{content.get('tokens', 0):,}",
        "time": f"{content.get('seconds', 0):,.1f} s in {content.get('segments', 1)} segments",
        "machine": f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('device')}",
        "memory": f"{amount(machine['peak_memory_bytes'], 'G')}B" if "peak_memory_bytes" in machine else None,
        "energy": f"{joules / 3.6e6:.4g} kWh, {energy['how']}: {energy['detail']}"
        if isinstance(joules, int | float)
        else f"unavailable: {energy.get('detail')}",
    }
    if isinstance(world, dict) and "co2_kg" in world:
        fields["footprint"] = f"{world['co2_kg']:.3g} kg CO2, {world['water_l']:.3g} l of water"
        fields[" "] = world["assumptions"]["source"]
    fields["money"] = (
        f"{rent:.4f} {money.get('currency')} ({money.get('price_source')})"
        if isinstance(rent, int | float)
        else "no price stated; --set price.per_hour=... price.source=..."
    )
    print_fields({name: None if text is None else printable(text) for name, text in fields.items()})
