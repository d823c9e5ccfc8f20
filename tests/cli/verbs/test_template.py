"""template check."""

import json
import shutil


def test_our_own_template_passes(cli, talker):
    code, out, _ = cli("template", "check", str(talker), "--json")
    assert code == 0
    assert all(finding["ok"] for finding in json.loads(out))


def test_a_template_without_end_tokens_fails_with_3(cli, trained, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(trained / "tokenizer", folder)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    code, out, err = cli("template", "check", str(folder))
    assert code == 3
    assert "FAIL" in out
    assert "end token" in err
