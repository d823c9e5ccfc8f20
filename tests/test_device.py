import logging

import pytest
import torch

from shoestring import device
from shoestring.errors import ConfigError, MissingDependencyError


@pytest.fixture(autouse=True)
def settings_of_before(monkeypatch):
    """Threads and denormals belong to the process: other tests get them back."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def with_gpu(monkeypatch, has_one: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_one)


def test_a_cpu_computes_in_float32(monkeypatch):
    with_gpu(monkeypatch, False)
    for name in ("auto", "cpu"):
        runtime = device.choose(name)
        assert runtime.device == torch.device("cpu")
        assert runtime.compute_dtype == torch.float32
        assert (runtime.rank, runtime.world_size) == (0, 1)


def test_a_gpu_is_taken_if_there_is_one_and_computes_in_bfloat16(monkeypatch):
    with_gpu(monkeypatch, True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "9")
    monkeypatch.setenv("WORLD_SIZE", "16")
    for name in ("auto", "cuda"):
        runtime = device.choose(name)
        assert runtime.device == torch.device("cuda", 1)
        assert runtime.compute_dtype == torch.bfloat16
        assert (runtime.rank, runtime.world_size) == (9, 16)
    assert device.choose("cpu").device == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_said_to_be_missing(monkeypatch):
    with_gpu(monkeypatch, False)
    with pytest.raises(MissingDependencyError, match="--device cpu"):
        device.choose("cuda")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:1", "mps"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ConfigError, match="use auto, cpu or cuda"):
        device.choose(name)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_counted_from_one(threads):
    with pytest.raises(ConfigError, match=f"threads = {threads}"):
        device.choose("cpu", threads=threads)


def test_threads_are_set():
    device.choose("cpu", threads=1)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE"])
def test_a_rank_that_is_no_number_is_refused_by_name(monkeypatch, name):
    monkeypatch.setenv(name, "first")
    with pytest.raises(ConfigError, match=f"{name} = 'first'"):
        device.choose("cpu")


def test_denormals_are_flushed():
    device.choose("cpu")
    assert float(torch.tensor([1e-39]) * torch.tensor([0.5])) == 0.0


def test_a_system_without_glibc_is_left_alone(monkeypatch, caplog):
    monkeypatch.setattr(device.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: pytest.fail("malloc was touched"))
    with caplog.at_level(logging.WARNING):
        assert device.choose("cpu").device.type == "cpu"


def test_the_peak_is_a_rate_of_this_machine(monkeypatch):
    with_gpu(monkeypatch, False)
    monkeypatch.setattr(device, "PEAK_SIZE", {"cpu": 1536})
    peak = device.measure_peak(device.choose("cpu"))
    assert 1e8 < peak < 1e14


@pytest.mark.parametrize("huge_pages", [False, True])
def test_memory_of_the_host_is_zero_and_can_be_written(huge_pages):
    pages = device.host_memory(3 << 20, huge_pages=huge_pages)
    values = torch.frombuffer(pages, dtype=torch.float32)
    assert len(values) == 3 << 18
    assert not values.any()
    values += 1
    assert int(values.sum()) == 3 << 18
