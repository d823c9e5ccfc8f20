"""Data sets of the Hugging Face hub: fetched as files into its cache; no code of a repository ever runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shoestring.errors import DataError, MissingDependencyError

_NAME = re.compile(
    r"(?:hf://)?(?:datasets/)?(?P<id>[\w][\w.-]*/[\w][\w.-]*)"
    r"(?:@(?P<revision>[\w][\w./-]*))?(?::(?P<part>[^:]+))?/?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubName:
    """`org/name@revision:part`: a repository, a branch, tag or commit of it, and a split or folder."""

    repository: str
    revision: str | None
    part: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}" if self.revision else self.repository


def hub_name(source: str) -> HubName | None:
    """The parts of `org/name`, `hf://datasets/org/name`, each with `@revision` and `:part`; else None."""
    match = _NAME.fullmatch(source)
    if match is None or ".." in source:
        return None
    return HubName(repository=match["id"], revision=match["revision"], part=match["part"] or "")


def fetch(name: HubName, patterns: Sequence[str]) -> Path:
    """Folder in the hub's cache with the repository's files of `patterns`; offline what is there already.

    Raises DataError when there is no such data set or it cannot be fetched, MissingDependencyError without
    the hub's client.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingDependencyError(
            f"the hub data set {name} needs huggingface_hub: pip install huggingface_hub (extra 'data')"
        ) from None
    try:
        folder = snapshot_download(
            name.repository, repo_type="dataset", revision=name.revision, allow_patterns=list(patterns)
        )
    except Exception as error:  # the hub's client raises its own, its HTTP client's and the system's errors
        raise DataError(_sentence(name, error)) from None
    return Path(folder)


def _sentence(name: HubName, error: Exception) -> str:
    """A sentence about an error, by the classes of the hub's client."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return f"the data set {name} is gated; accept its terms on huggingface.co and run `hf auth login`"
    if "RevisionNotFoundError" in kinds:
        return f"{name.repository} has no revision {name.revision!r}; leave out the @ for the newest"
    if "RepositoryNotFoundError" in kinds:
        return f"{name} is no local file or folder, and no data set on the hub; check the spelling"
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
        return (
            f"{name} is no local file or folder, and no data set in the hub's cache while the hub is out of "
            "reach; connect once, or give a file"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return f"{name} is no local file or folder and cannot be downloaded from the hub: {reason}"
