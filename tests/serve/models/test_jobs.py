"""Work on models, in processes of their own."""

import asyncio

import pytest

from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.models.jobs import MAX_JOBS, Jobs


async def until(is_true):
    for _ in range(3000):
        if is_true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come")


def test_a_model_is_quantized(tmp_path):
    target, shares = tmp_path / "small", []

    async def course():
        jobs = Jobs()
        job = jobs.start("quantize", "small", str(resolve("mini")), str(target), "int4")
        with pytest.raises(RequestError, match="being made already"):
            jobs.start("quantize", "small", "x", "y", "int4")
        while jobs.jobs:
            shares.append((job.bytes, job.total))
            await asyncio.sleep(0.05)
        assert job.failure == ""
        assert job.bytes == job.total

    asyncio.run(course())
    assert Checkpoint.open(target).quantization == "int4"
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_failure_stays_until_it_is_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    async def course():
        jobs = Jobs()
        job = jobs.start("pull", "org/name", "org/name")
        await until(lambda: job.failure)
        assert "org/name" in job.failure
        assert list(jobs.jobs) == [job.id]
        await jobs.end(job.id)
        assert jobs.jobs == {}
        with pytest.raises(RequestError, match="no such work"):
            await jobs.end(job.id)

    asyncio.run(course())


def test_work_is_ended_and_the_service_ends_it(tmp_path):
    async def course():
        jobs = Jobs()
        first = jobs.start("quantize", "small", str(resolve("mini")), str(tmp_path / "small"), "int4")
        await jobs.end(first.id)
        for number in range(MAX_JOBS):
            jobs.start("quantize", f"s{number}", str(resolve("mini")), str(tmp_path / str(number)), "int4")
        with pytest.raises(RequestError, match="wait for one"):
            jobs.start("pull", "smollm2", "smollm2")
        await jobs.close()
        assert jobs.jobs == {}

    asyncio.run(course())
    assert list(tmp_path.iterdir()) == []
