import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoestring.errors import CheckpointError, ConfigError, StorageError
from shoestring.train import checkpoint

# Saves steps forever, telling which step is being saved and which is safe; resumes from the newest.
SAVER = """
import sys
from pathlib import Path
from shoestring.train import checkpoint

folder = Path(sys.argv[1])
newest = checkpoint.latest(folder)
step = checkpoint.step_of(newest) if newest else 0

def write(path):
    (path / "model").mkdir()
    for part in range(4):
        (path / "model" / f"part-{part}").write_text(f"{step}:{part}:" + "x" * 20_000)
    (path / "trainer.json").write_text(str(step))

while True:
    step += 1
    print("saving", step, flush=True)
    checkpoint.save(folder, step, write, keep=2)
    print("saved", step, flush=True)
"""


def contents(text: str):
    def write(path: Path) -> None:
        (path / "model").mkdir()
        (path / "model" / "weights.bin").write_bytes(text.encode() * 100)
        (path / "config.json").write_text(text)
        (path / "empty").write_bytes(b"")

    return write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def saver(folder: Path) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    return subprocess.Popen([sys.executable, "-c", SAVER, str(folder)], stdout=subprocess.PIPE, env=env)


def test_saved_checkpoints_verify_and_only_the_newest_stay(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    assert checkpoint.latest(folder) is None
    for step in (10, 20, 30):
        path = checkpoint.save(folder, step, contents(f"step {step}"), keep=2)
        assert path == folder / f"step-{step:08d}"
        checkpoint.verify(path)
    assert names(folder) == ["step-00000020", "step-00000030"]
    assert checkpoint.latest(folder) == path
    assert checkpoint.step_of(path) == 30
    assert (path / "config.json").read_text() == "step 30"
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["step"] == 30
    assert sorted(manifest["files"]) == ["config.json", "empty", "model/weights.bin"]


def test_a_saved_step_is_never_written_again(tmp_path):
    checkpoint.save(tmp_path, 1, contents("first"))
    path = checkpoint.save(tmp_path, 1, lambda _: pytest.fail("write was called"))
    assert (path / "config.json").read_text() == "first"


def test_a_damaged_step_is_replaced(tmp_path):
    path = checkpoint.save(tmp_path, 1, contents("first"))
    (path / "config.json").write_text("damag")
    assert (checkpoint.save(tmp_path, 1, contents("again")) / "config.json").read_text() == "again"
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("file", ["config.json", "model/weights.bin", "manifest.json"])
def test_every_single_flipped_bit_is_found(tmp_path, file):
    path = checkpoint.save(tmp_path, 7, contents("short"))
    whole = (path / file).read_bytes()
    for position in range(0, len(whole), 1 if file == "config.json" else 5):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            (path / file).write_bytes(damaged)
            with pytest.raises(CheckpointError, match="damaged"):
                checkpoint.verify(path)
    (path / file).write_bytes(whole)
    checkpoint.verify(path)


@pytest.mark.parametrize("file", ["config.json", "model/weights.bin", "manifest.json"])
@pytest.mark.parametrize("harm", ["truncate", "remove", "fifo", "folder", "link"])
def test_a_damaged_file_is_refused_by_name(tmp_path, file, harm):
    path = checkpoint.save(tmp_path, 7, contents("text"))
    damaged = path / file
    if harm == "truncate":
        damaged.write_bytes(damaged.read_bytes()[:-1])
    else:
        damaged.rename(tmp_path / "aside")
    if harm == "fifo":
        os.mkfifo(damaged)
    elif harm == "folder":
        damaged.mkdir()
    elif harm == "link":
        damaged.symlink_to(tmp_path / "aside")
    with pytest.raises(CheckpointError, match=file):
        checkpoint.verify(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"files": 3}',
        '{"files": {"/etc/hostname": {"bytes": 1, "sha256": "0"}}}',
        '{"files": {"../secret": {"bytes": 1, "sha256": "0"}}}',
        '{"files": {"a": {"bytes": 1}}}',
        '{"files": {"a": null}}',
        "\udcff",
    ],
)
def test_a_hostile_manifest_is_refused(tmp_path, text):
    path = checkpoint.save(tmp_path, 7, contents("text"))
    (path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        checkpoint.verify(path)


def test_a_checkpoint_under_another_steps_name_is_refused(tmp_path):
    checkpoint.save(tmp_path, 7, contents("text")).rename(tmp_path / "step-00000008")
    with pytest.raises(CheckpointError, match="manifest"):
        checkpoint.verify(tmp_path / "step-00000008")


def test_latest_skips_the_damaged_and_names_it(tmp_path, caplog):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, contents(f"{step}"))
    (tmp_path / "step-00000002" / "config.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert checkpoint.latest(tmp_path) == tmp_path / "step-00000001"
    assert "step-00000002" in caplog.text
    assert "config.json" in caplog.text
    (tmp_path / "step-00000001" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="step-00000002, step-00000001"):
        checkpoint.latest(tmp_path)


def test_pruning_never_counts_damaged_checkpoints_or_removes_the_one_just_saved(tmp_path):
    for step in (10, 20):
        checkpoint.save(tmp_path, step, contents(f"{step}"), keep=2)
    (tmp_path / "step-00000020" / "config.json").unlink()
    checkpoint.save(tmp_path, 30, contents("30"), keep=2)
    assert names(tmp_path) == ["step-00000010", "step-00000020", "step-00000030"]
    checkpoint.save(tmp_path, 25, contents("25"), keep=1)  # resumed from before 30
    assert names(tmp_path) == ["step-00000025", "step-00000030"]


def test_other_names_are_left_alone_and_leftovers_of_dead_processes_go(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f"step-00000001.tmp-{dead.pid}", f"step-00000001.trash-{dead.pid}", "step-1", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    living = f"step-00000001.tmp-{os.getppid()}"
    (tmp_path / living).mkdir()
    checkpoint.save(tmp_path, 5, contents("five"))
    assert names(tmp_path) == sorted(["notes", "step-00000005", "step-1", living])


def test_a_failing_writer_leaves_nothing(tmp_path):
    checkpoint.save(tmp_path, 1, contents("one"))
    for error in (KeyError("bug"), KeyboardInterrupt()):

        def write(path: Path, error: BaseException = error) -> None:
            contents("two")(path)
            raise error

        with pytest.raises(type(error)):
            checkpoint.save(tmp_path, 2, write)
        assert names(tmp_path) == ["step-00000001"]


def test_a_full_disk_names_needed_and_free_bytes_and_keeps_the_rest(tmp_path):
    checkpoint.save(tmp_path, 1, contents("one"))

    def write(path: Path) -> None:
        (path / "weights").write_bytes(b"x" * 4321)
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"no room for .*4,321 bytes needed, [\d,]+ free"):
        checkpoint.save(tmp_path, 2, write)
    assert names(tmp_path) == ["step-00000001"]
    checkpoint.verify(tmp_path / "step-00000001")


@pytest.mark.parametrize("writer", ["python", "safetensors"])
def test_a_real_size_limit_is_told_as_a_full_disk(tmp_path, writer):
    import torch
    from safetensors.torch import save_file

    def write(path: Path) -> None:
        if writer == "python":
            (path / "weights").write_bytes(b"x" * 400_000)
        else:
            save_file({"weights": torch.zeros(100_000)}, path / "weights.safetensors")

    checkpoint.save(tmp_path, 1, contents("one"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageError, match="no room"):
            checkpoint.save(tmp_path, 2, write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoint.latest(tmp_path) == tmp_path / "step-00000001"


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        checkpoint.save(tmp_path / "file" / "run", 1, contents("one"))


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (1, 0)])
def test_senseless_arguments_are_refused(tmp_path, step, keep):
    with pytest.raises(ConfigError, match="at least"):
        checkpoint.save(tmp_path, step, contents("x"), keep=keep)


def test_thirty_kills_lose_no_saved_step(tmp_path):
    rng = random.Random(0)
    safe = 0
    for _ in range(30):
        process = saver(tmp_path)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(rng.randint(1, 6))]
        time.sleep(rng.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        lines = b"".join([*lines, process.stdout.read()]).decode().splitlines()
        process.stdout.close()
        process.wait()
        saving = max([safe, *(int(line.split()[1]) for line in lines if line.startswith("saving"))])
        safe = max([safe, *(int(line.split()[1]) for line in lines if line.startswith("saved"))])
        newest = checkpoint.latest(tmp_path)
        assert newest is not None or safe == 0
        if newest is not None:
            step = checkpoint.step_of(newest)
            assert safe <= step <= saving
            assert (newest / "trainer.json").read_text() == str(step)
            assert (newest / "model" / "part-3").read_text().startswith(f"{step}:3:")
            safe = step
    assert safe > 30
    assert len([name for name in names(tmp_path) if "." not in name]) <= 3
    checkpoint.save(tmp_path, safe + 1, contents("end"))
    assert len(names(tmp_path)) == 2
