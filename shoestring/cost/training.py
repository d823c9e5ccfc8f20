"""A plan of pretraining: FLOPs to GPU-hours, days, dollars, energy and water, each with its assumption."""

from dataclasses import asdict, dataclass
from typing import Any

from shoestring.cost.footprint import Intensities, footprint
from shoestring.cost.published import Hardware, PublishedRun
from shoestring.cost.utilisation import UtilisationClass


@dataclass(frozen=True, kw_only=True)
class Bill:
    """The time, the money and the footprint of GPU-hours."""

    gpu_hours: float
    devices: int
    days: float
    dollars: float
    footprint: dict[str, Any]


def bill(gpu_hours: float, machine: Hardware, devices: int, per_hour: float, world: Intensities) -> Bill:
    """Days on so many devices, their rent, and their energy at full power."""
    return Bill(
        gpu_hours=gpu_hours,
        devices=devices,
        days=gpu_hours / devices / 24,
        dollars=gpu_hours * per_hour,
        footprint=footprint(gpu_hours * 3600 * machine.watts, world),
    )


def prediction(
    flops: float,
    group: UtilisationClass,
    machine: Hardware,
    *,
    devices: int,
    per_hour: float,
    world: Intensities,
) -> dict[str, Any]:
    """The bill of a run with so many FLOPs, those at both ends of its class's interval, and why."""
    hours = group.hours(flops, machine.bf16_flops_per_s)
    low, high = group.interval(hours)
    return {
        "flops": flops,
        "class": group.name,
        **asdict(bill(hours, machine, devices, per_hour, world)),
        "gpu_hours_interval": [low, high],
        "dollars_interval": [low * per_hour, high * per_hour],
        "assumptions": {
            "utilisation": group.assumption,
            "hardware": f"{machine.name}: {machine.bf16_flops_per_s / 1e12:.0f} TFLOP/s in BF16, "
            f"{machine.watts:.0f} W all the time ({machine.source})",
            "price": f"${per_hour:g} for an hour of a device",
            "footprint": world.source,
        },
    }


def published(run: PublishedRun, machine: Hardware, per_hour: float, world: Intensities) -> dict[str, Any]:
    """The published hours of a run stage by stage, and their bill."""
    stages = {"pretraining": run.pretraining_hours} if run.pretraining_hours else {}
    stages |= dict(run.further)
    total = bill(run.hours, machine, 1, per_hour, world)
    return {
        "gpu_hours": run.hours,
        "stages": {name: {"gpu_hours": hours, "dollars": hours * per_hour} for name, hours in stages.items()},
        "dollars": total.dollars,
        "footprint": total.footprint,
        "hardware": machine.name,
        **({"utilisation": run.utilisation} if run.active else {}),
        **({"outlier": run.outlier} if run.outlier else {}),
        **({"excluded": run.excluded} if run.excluded else {}),
        "source": run.source,
    }
