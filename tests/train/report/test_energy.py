import pytest

from shoestring.errors import ConfigError
from shoestring.train.report.energy import Energy, EnergyMeter, GpuCounter, RaplCounter, combine


def zone(powercap, name: str, label: str, microjoules: int, largest: int = 1_000_000):
    folder = powercap / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(label + "\n")
    (folder / "max_energy_range_uj").write_text(f"{largest}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def fake_smi(tmp_path, script: str) -> str:
    path = tmp_path / "fake-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_packages_and_memory_are_counted_once_and_wrapping_is_followed(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    other = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 0)
    psys = zone(tmp_path, "intel-rapl:2", "psys", 0)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    (tmp_path / "intel-rapl").mkdir()
    counter = RaplCounter(tmp_path)
    counter.read()
    assert counter.joules == 0
    package.write_text("100000")  # wrapped at 1 J: 0.1 J to the end and 0.1 J after
    other.write_text("500000")
    core.write_text("90000")
    memory.write_text("50000")
    psys.write_text("999999")
    counter.read()
    assert counter.joules == pytest.approx(0.2 + 0.5 + 0.05)


def test_one_counter_that_cannot_be_read_makes_the_sum_unknown(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    broken = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    counter = RaplCounter(tmp_path)
    counter.read()
    broken.write_text("not a number")
    counter.read()
    broken.write_text("5")
    counter.read()
    assert counter.joules is None


def test_measured_on_a_processor(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with EnergyMeter(powercap=tmp_path, watts=10) as meter:
        counter.write_text("700000")
    energy = meter.read()
    assert energy.how == "measured"
    assert energy.joules == pytest.approx(0.7)
    assert "RAPL" in energy.detail


def test_the_energy_until_now_is_read_at_once(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with EnergyMeter(powercap=tmp_path) as meter:
        counter.write_text("300000")
        assert meter.read().joules == 0
        assert meter.read_now().joules == pytest.approx(0.3)
    smi = fake_smi(tmp_path, "echo 200")
    with EnergyMeter(gpus=("0",), powercap=tmp_path / "none", nvidia_smi=smi) as meter:
        first = meter.read_now().joules
        second = meter.read_now().joules
    assert first is not None
    assert 0 < first < second


def test_estimated_from_stated_watts_and_fixed_after_the_end(tmp_path):
    with EnergyMeter(powercap=tmp_path, watts=1000) as meter:
        pass
    energy = meter.read()
    assert energy.how == "estimated"
    assert energy.joules is not None
    assert 0 < energy.joules < 1000
    assert "1000 W as stated" in energy.detail
    assert meter.read() == energy


def test_unavailable_says_why(tmp_path):
    with EnergyMeter(powercap=tmp_path) as meter:
        pass
    assert meter.read().joules is None
    assert meter.read().how == "unavailable"
    assert "RAPL" in meter.read().detail


@pytest.mark.parametrize("watts", [0, -1, float("nan"), float("inf")])
def test_senseless_watts_are_refused(watts):
    with pytest.raises(ConfigError, match="watts"):
        EnergyMeter(watts=watts)


def test_gpu_power_is_integrated_over_every_gpu(tmp_path, monkeypatch):
    smi = fake_smi(tmp_path, 'echo "$@" > "$0.args"; echo 300.5; echo 99.5')
    clock = iter([10.0, 12.0, 12.5])
    monkeypatch.setattr("shoestring.train.report.energy.time.monotonic", lambda: next(clock))
    counter = GpuCounter(("GPU-a", "GPU-b"), smi)
    for _ in range(3):
        counter.read()
    assert counter.joules == pytest.approx(400 * 2.5)
    assert (tmp_path / "fake-smi.args").read_text().strip().endswith("-i GPU-a,GPU-b")


@pytest.mark.parametrize("script", ["exit 9", "echo '[N/A]'", "echo nan", "echo 1; echo 2", "echo"])
def test_a_gpu_that_cannot_be_measured_is_never_left_out_silently(tmp_path, script):
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    smi = fake_smi(tmp_path, script)
    with EnergyMeter(gpus=("0",), powercap=tmp_path, nvidia_smi=smi) as meter:
        pass
    assert meter.read().how == "unavailable"
    with EnergyMeter(gpus=("0",), powercap=tmp_path, nvidia_smi=str(tmp_path / "absent"), watts=5) as meter:
        pass
    assert meter.read().how == "estimated"


def test_measured_on_a_gpu_while_the_block_runs(tmp_path):
    smi = fake_smi(tmp_path, "echo 100")
    with EnergyMeter(gpus=("0",), powercap=tmp_path, nvidia_smi=smi, interval_s=0.01) as meter:
        while not meter.read().joules:
            pass
    assert meter.read().how == "measured"
    assert "without the processor" in meter.read().detail


def test_parts_add_up_to_what_the_worse_part_knows():
    measured = Energy(joules=5.0, how="measured", detail="RAPL")
    estimated = Energy(joules=2.0, how="estimated", detail="10 W")
    unknown = Energy(joules=None, how="unavailable", detail="no counter")
    assert combine(measured, measured) == Energy(joules=10.0, how="measured", detail="RAPL")
    for pair in ((measured, estimated), (estimated, measured)):
        total = combine(*pair)
        assert (total.joules, total.how) == (7.0, "estimated")
        assert "RAPL" in total.detail
        assert "10 W" in total.detail
    assert combine(measured, unknown).joules is None
    assert "no counter" in combine(unknown, estimated).detail


def test_the_machines_own_power_meter_is_read_before_the_processors(tmp_path, monkeypatch):
    folder = tmp_path / "hwmon3"
    folder.mkdir()
    (folder / "name").write_text("power_meter\n")
    (folder / "power1_average").write_text("50000000\n")
    clock = iter([0.0, 1.0, 1.5, 5.5, 6.0, *[7.0] * 9])
    monkeypatch.setattr("shoestring.train.report.energy.time.monotonic", lambda: next(clock))
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with EnergyMeter(powercap=tmp_path, hwmon=tmp_path) as meter:
        pass
    assert meter.read().joules == pytest.approx(50.0 * 4)
    assert "hwmon" in meter.read().detail


def test_a_machine_without_counters_is_estimated_by_a_formula_that_is_stated(tmp_path):
    with EnergyMeter(powercap=tmp_path, hwmon=tmp_path, is_estimated=True) as meter:
        sum(range(1_000_000))
    energy = meter.read()
    assert energy.how == "estimated"
    assert energy.joules is not None
    assert energy.joules > 0
    assert "0.74 W at rest" in energy.detail
    assert "no watts were stated" in energy.detail
    assert meter.read() == energy
