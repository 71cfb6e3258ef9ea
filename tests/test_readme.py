"""What the README shows, works."""

import re
from pathlib import Path

import pytest

from minidraw import cli

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_python_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out.splitlines()
    assert {path.name for path in tmp_path.iterdir()} == {"digits.png", "drawing.png", "again.png"}
    assert re.match(r"\d+\.\d nats = ", out[0]) and out[-1].startswith("20 ")


def test_its_commands_and_options_exist(capsys):
    for command in set(re.findall(r"minidraw (\w+)", " ".join(re.findall(r"`minidraw [^`]*`", TEXT)))):
        with pytest.raises(SystemExit) as exit:
            cli.main([command, "--help"])
        assert exit.value.code == 0
    helps = capsys.readouterr().out
    ours = re.sub(r"`python [^`]*`", "", TEXT)  # scripts have options of their own
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)) - {"--quiet", "--help"}:
        assert option in helps, option


def test_its_links_lead_somewhere():
    for target in re.findall(r"""(?:\]\(|href="|src=")(?!http)([^)"#]+)""", TEXT):
        assert (README.parent / target).exists(), target
