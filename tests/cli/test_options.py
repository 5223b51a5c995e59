"""What the command line takes, and how it helps."""

import re
import shlex
import subprocess
import sys
from pkgutil import resolve_name

import pytest

pytest.importorskip("rl_zoo3")

from sb3_diayn.cli import main, make_parser

COMMANDS = """
    train play view report evaluate plot record compare push export finetune imitate sweep tune
    config
""".split()


def help_of(capsys, *words):
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--help"])
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_parses_and_no_default_of_none(capsys, command):
    text = help_of(capsys, command)
    assert "default: None" not in text and "default: False" not in text
    example = text[text.index("example:") :].splitlines()[1].strip()
    words = shlex.split(example)
    assert words[:2] == ["sb3-diayn", command]
    assert callable(resolve_name(make_parser().parse_args(words[1:]).body))


def test_the_main_help_has_an_example_that_parses(capsys):
    words = shlex.split(help_of(capsys).partition("example: ")[2])
    assert make_parser().parse_args(words[1:]).env == "MountainCarContinuous-v0"


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("train", ["what to train", "how to train", "what to save and to show", "films"]),
        ("play", ["which run", "which skills", "how to play", "films"]),
        ("view", ["which run", "which skills", "how to play"]),
        ("report", ["which run", "which skills", "how to measure", "films", "output"]),
        ("tune", ["what to train", "how to train", "how to search"]),
    ],
)
def test_options_stand_in_groups_with_one_title_each(capsys, command, groups):
    titles = re.findall(r"^(\w[^:\n]*):$", help_of(capsys, command), re.MULTILINE)
    assert len(titles) == len(set(titles))
    assert set(groups) <= set(titles)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian", "--env", "x"], "train"),
        (["fine-tune", "x"], "finetune"),
        (["play", "x", "--render", "humen"], "human"),
    ],
)
def test_a_mistyped_word_is_corrected(capsys, words, meant):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert f"Did you mean {meant}?" in capsys.readouterr().err


def test_a_word_like_no_other_is_not(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["zzz"])
    error = capsys.readouterr().err
    assert "invalid choice" in error and "Did you mean" not in error


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["record", "RUN", "--skill", "1"], "skill", "1"),
        (["record", "RUN", "--skills", "1"], "skill", "1"),
        (["report", "RUN", "--skills", "1,2"], "skill", "1,2"),
        (["export", "RUN", "--skill", "all"], "skill", "all"),
        (["sweep", "--env", "A-v0", "B-v0"], "envs", ["A-v0", "B-v0"]),
        (["sweep", "--envs", "A-v0"], "envs", ["A-v0"]),
        (["report", "RUN", "--film-seconds", "2.5"], "film_seconds", 2.5),
        (["train", "--film-steps", "7"], "film_steps", 7),
        (["train", "--no-films"], "films", False),
        (["train", "--films"], "films", True),
        (["train"], "films", None),
    ],
)
def test_one_option_for_one_thing_and_the_old_spellings(words, name, value):
    assert getattr(make_parser().parse_args(words), name) == value


@pytest.mark.parametrize("text", ["0", "-1", "x", "inf", "nan"])
def test_seconds_are_positive(capsys, text):
    with pytest.raises(SystemExit, match="2"):
        main(["record", "RUN", f"--film-seconds={text}"])
    assert "is not a positive number" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(capsys, shell):
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert "finetune" in script and "--film-seconds" in script


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("plotting", "pandas"),
        ("plotting", "matplotlib"),
        ("comparison", "scipy"),
        ("video", "PIL"),
        ("viewer", "pygame"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(module, library):
    """Also where somebody imports the module, not a command."""
    script = f"import sys; sys.modules['{library}'] = None; import sb3_diayn.evaluation.{module}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(rf"This needs {library}.*pip install 'sb3-diayn\[report\]'", done.stderr)
