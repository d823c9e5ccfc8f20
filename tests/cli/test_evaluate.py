"""The eval verb."""

import json


def test_eval_scores_beside_the_compressors_and_checks_a_threshold(cli, trained, texts):
    arguments = [
        "eval",
        str(trained / "model"),
        "--source",
        str(texts),
        "--seq-len",
        "64",
        "--max-tokens",
        "2000",
    ]
    code, out, _ = cli(*arguments, "--json")
    report = json.loads(out)
    assert code == 0
    assert 0 < report["bits_per_byte"] < 8
    assert 0 < report["xz -9"] < 8
    assert 0 < report["gzip -9"] < 8
    assert report["utf8_bytes"] > 0
    code, out, err = cli(*arguments, "--below", "0.001")
    assert code == 3
    assert "0.001" in err
    assert "bits_per_byte" in out
