"""Names to folders: local first, the hub next (stood in for here), one sentence when there is nothing."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors as hub_errors

from shoestring.errors import CheckpointError, ConfigError, ShoestringError, UnsafeFileError
from shoestring.model.hf import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What is asked of huggingface_hub, which answers with a snapshot folder."""
    snapshot = tmp_path / "cache" / "models--org--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    seen: list[tuple[str, dict[str, Any]]] = []

    def download(repository: str, **options: Any) -> str:
        seen.append((repository, options))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    return seen


@pytest.mark.parametrize(
    ("name", "repository", "revision"),
    [
        ("org/name", "org/name", None),
        ("hf://org/name", "org/name", None),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", None),
        ("org/name@main", "org/name", "main"),
        ("hf://org/name@refs/pr/3", "org/name", "refs/pr/3"),
        (f"org/name@{COMMIT}", "org/name", COMMIT),
    ],
)
def test_hub_names(name: str, repository: str, revision: str | None, calls: list[Any]) -> None:
    folder = hub.resolve(name)
    assert hub.commit(folder) == COMMIT
    ((asked, options),) = calls
    assert (asked, options["revision"]) == (repository, revision)
    assert set(options["allow_patterns"]) == {
        "*.safetensors",
        "*.json",
        "*.jinja",
        "*.txt",
    }  # no code, no pickle


def test_what_is_here_comes_first(tmp_path: Path, calls: list[Any]) -> None:
    folder = tmp_path / "org" / "name"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    assert hub.resolve("org/name").resolve() == folder
    assert hub.resolve(str(folder / "model.safetensors")) == folder
    assert hub.commit(folder) is None
    assert calls == []
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeFileError, match="is a pickle"):
        hub.resolve(str(folder / "pytorch_model.bin"))


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("deepseek-v3", ConfigError, "deepseek-v3 is a preset, a shape without weights"),
        ("runs/demo/final", CheckpointError, "there is no folder runs/demo/final"),
        ("./here", CheckpointError, "there is no folder ./here"),
        ("../org/name", CheckpointError, "there is no folder"),
        ("~/models", CheckpointError, "there is no folder ~/models"),
        ("", CheckpointError, "there is no folder"),
        ("org/..", CheckpointError, "there is no folder"),
        ("org/name@", CheckpointError, "there is no folder"),
        ("https://huggingface.co/org/name", CheckpointError, "there is no folder"),
        ("org/name; rm -rf", CheckpointError, "there is no folder"),
        ("x\0y", CheckpointError, "there is no folder"),
        ("~nobody-here/x/y", CheckpointError, "there is no folder"),
        ("x" * 5000, CheckpointError, "there is no folder"),
    ],
)
def test_names_that_are_nothing(name: str, kind: type[ShoestringError], said: str, calls: list[Any]) -> None:
    with pytest.raises(kind) as caught:
        hub.resolve(name)
    assert said in str(caught.value)
    assert calls == []


def response_error(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    error.args = ("first line\nsecond line",)
    return error


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (hub_errors.GatedRepoError, "org/name@v1 is gated; accept its terms"),
        (hub_errors.RevisionNotFoundError, "org/name has no revision 'v1'"),
        (hub_errors.RepositoryNotFoundError, "there is no org/name on the hub"),
        (hub_errors.LocalEntryNotFoundError, "is not in the local cache and the hub is out of reach"),
        (hub_errors.OfflineModeIsEnabled, "is not in the local cache and the hub is out of reach"),
        (hub_errors.HFValidationError, "is not a name the hub can have"),
        (ConnectionError, "could not fetch org/name@v1: first line; try again"),
        (OSError, "could not fetch org/name@v1: "),
    ],
)
def test_a_download_that_fails(
    kind: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(repository: str, **options: Any) -> str:
        raise response_error(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        hub.resolve("org/name@v1")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
