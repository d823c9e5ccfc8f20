"""Classes of utilisation: the share of the peak that published runs of a kind reach, and how far off that is.

A class is the mean of its runs, outliers left out. Its interval is that of leaving one out: each run's hours
are predicted from the others of its class, and the worst errors to both sides are the interval.
"""

from dataclasses import dataclass

from shoestring.cost.published import PublishedRun, runs


@dataclass(frozen=True, kw_only=True)
class UtilisationClass:
    """The mean share of the BF16 peak, and the errors of predicted hours when each run is left out."""

    name: str
    share: float
    lowest_error: float
    """Smallest (predicted hours / published hours - 1)."""
    highest_error: float
    members: tuple[str, ...]

    def hours(self, flops: float, peak_flops_per_s: float) -> float:
        return flops / (self.share * peak_flops_per_s) / 3600

    def interval(self, hours: float) -> tuple[float, float]:
        """The hours that a run predicted at `hours` may take: the errors undone."""
        return hours / (1 + self.highest_error), hours / (1 + self.lowest_error)

    @property
    def assumption(self) -> str:
        if len(self.members) == 1:
            return f"{self.share:.1%} of the BF16 peak, a fit of {self.members[0]} alone: no prediction"
        return (
            f"{self.share:.1%} of the BF16 peak, the mean of {', '.join(self.members)}; leaving one out, "
            f"hours were off by {self.lowest_error:+.0%} to {self.highest_error:+.0%}"
        )


def members(name: str) -> list[PublishedRun]:
    """The runs that a class is fitted to: no outliers, unless it has nothing else."""
    group = [run for run in runs().values() if run.group == name]
    return [run for run in group if not run.outlier] or group


def leave_one_out(name: str) -> dict[str, float]:
    """Errors of the hours of each run of a class, predicted from the others; a single run has none."""
    shares = {run.name: run.utilisation for run in members(name)}
    if len(shares) == 1:
        return {}
    total = sum(shares.values())
    return {run: share / ((total - share) / (len(shares) - 1)) - 1 for run, share in shares.items()}


def utilisation_class(name: str) -> UtilisationClass:
    """A class by its name."""
    group, errors = members(name), leave_one_out(name)
    return UtilisationClass(
        name=name,
        share=sum(run.utilisation for run in group) / len(group),
        lowest_error=min(errors.values(), default=0.0),
        highest_error=max(errors.values(), default=0.0),
        members=tuple(run.name for run in group),
    )


def class_names() -> list[str]:
    return list(dict.fromkeys(run.group for run in runs().values() if run.group))


def class_of(kind: str, *, has_experts: bool) -> UtilisationClass:
    """The class of a model on a generation of hardware; A100 knows dense models alone, and says so."""
    name = f"{kind} {'MoE' if has_experts else 'dense'}"
    return utilisation_class(name if name in class_names() else f"{kind} dense")
