"""doctor."""

import json

from shoestring.cli.verbs import doctor


def test_doctor_measures_this_machine(cli):
    code, out, _ = cli("doctor", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["matmul_flops_per_s"] > 1e8
    assert report["memory_bytes_per_s"] > 1e8
    assert report["packages"]["torch"]
    assert "FLOP/s measured" in cli("doctor")[1]


def test_a_full_disk_is_a_problem_with_code_4(cli, monkeypatch):
    class Full:
        free = 1000

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _path: Full)
    code, _, err = cli("doctor")
    assert code == 4
    assert "disk" in err
