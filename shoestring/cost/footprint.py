"""Energy, carbon and water of a computation, by formulas whose factors and sources are stated."""

from dataclasses import asdict, dataclass
from typing import Any

JOULES_PER_KWH = 3.6e6
CORE_WATTS_AT_REST, CORE_WATTS_BUSY = 0.74, 3.5
"""Of a virtual core, its share of the server with it (Cloud Carbon Footprint, appendix I, AWS)."""
MEMORY_WATTS_PER_GB = 0.392
"""Cloud Carbon Footprint's methodology, section Memory."""


@dataclass(frozen=True, kw_only=True)
class Intensities:
    """Factors from a kilowatt-hour at the machine to carbon and water, as stated here or by the user."""

    pue: float = 1.1
    """Energy of the whole data centre for each unit of its machines (LLaMA, arXiv 2302.13971, section 6)."""
    co2_kg_per_kwh: float = 0.385
    """Average of the electricity of the United States (the same section)."""
    site_water_l_per_kwh: float = 1.8
    """Evaporated for cooling, for each kilowatt-hour of a data centre (LBNL-1005775, 2016)."""
    source_water_l_per_kwh: float = 7.6
    """Consumed in power stations, average of the United States (the same report)."""
    source: str = (
        "PUE and CO2 of LLaMA (arXiv 2302.13971, section 6: United States), water of LBNL's report of 2016 "
        "(LBNL-1005775: United States)"
    )


def footprint(joules: float, intensities: Intensities) -> dict[str, Any]:
    """Kilowatt-hours at the machine and of the data centre, CO2, litres of water, and the factors."""
    kwh = joules / JOULES_PER_KWH
    centre = kwh * intensities.pue
    return {
        "kwh": kwh,
        "kwh_with_pue": centre,
        "co2_kg": centre * intensities.co2_kg_per_kwh,
        "water_l": centre * (intensities.site_water_l_per_kwh + intensities.source_water_l_per_kwh),
        "assumptions": asdict(intensities),
    }


def estimated_joules(seconds: float, core_seconds: float, *, cores: int, memory_bytes: int) -> float:
    """Joules of a machine without counters: its cores at rest, what busy ones add, and its memory."""
    rest = cores * CORE_WATTS_AT_REST + memory_bytes / 1e9 * MEMORY_WATTS_PER_GB
    return rest * seconds + (CORE_WATTS_BUSY - CORE_WATTS_AT_REST) * core_seconds


def estimate_formula(cores: int, memory_bytes: int) -> str:
    """The formula of `estimated_joules` in words."""
    return (
        f"{cores} cores x {CORE_WATTS_AT_REST} W at rest + {CORE_WATTS_BUSY - CORE_WATTS_AT_REST:.2f} W for "
        f"each second of a core that this process used + {memory_bytes / 1e9:.0f} GB x "
        f"{MEMORY_WATTS_PER_GB} W (Cloud Carbon Footprint's factors)"
    )
