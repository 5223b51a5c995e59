"""Damaged files of a run: each command ends in a sentence with the file's name."""

import io
import json
import pickle
import shutil
import warnings
import zipfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sb3_diayn.cli import main
from tests.helpers.runs import CHECKPOINT, ENV, NAME, OPTIONS, make_run, swept

# A run is trained first.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn_figures")]


def flipped(content, index):
    """Change one bit of a byte."""
    return content[:index] + bytes([content[index] ^ 64]) + content[index + 1 :]


ZIP = f"{NAME}.zip"
DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "garbage": lambda content: bytes(range(256)),
    "a pickled number": lambda content: pickle.dumps(5),
    "a pickled mapping": lambda content: pickle.dumps({}),
    "a list": lambda content: b"[]",
    "a number": lambda content: b"5",
    "a mapping": lambda content: b'{"a": 1}',
    "text without an end": lambda content: b"a: [1,",
}
# One bit may change what nobody can check, so these may also end well.
SMALL_DAMAGES = {
    "without its last byte": lambda content: content[:-1],
    "a bit changed": lambda content: flipped(content, 0),
    "a bit in the middle changed": lambda content: flipped(content, len(content) // 2),
}
COMMANDS = OPTIONS | {"imitate": ["--no-films", "--device", "cpu"], "plot evaluation.json": []}
READ_ALL = [command for command in COMMANDS if command != "plot evaluation.json"]
PLAYED = [command for command in READ_ALL if command not in ("imitate", "train")]
# Which commands cannot do without a file, or without a member of a zip.
READERS = {
    f"{NAME}/config.yml": READ_ALL,
    f"{NAME}/args.yml": READ_ALL,
    f"{NAME}/vecnormalize.pkl": PLAYED,
    ZIP: READ_ALL,
    f"{ZIP}:data": READ_ALL,
    f"{ZIP}:policy.pth": PLAYED,
    f"{ZIP}:actor.optimizer.pth": PLAYED,
    f"{CHECKPOINT}/model.zip": ["train"],
    f"{CHECKPOINT}/model.zip:policy.pth": ["train"],
    f"{CHECKPOINT}/replay_buffer.pkl": ["train"],
    f"{CHECKPOINT}/{NAME}/vecnormalize.pkl": ["train"],
    "evaluation.json": ["plot evaluation.json"],
}
# Files without which something is left out, or made again.
OPTIONAL = {
    f"{NAME}/command.txt": ["report"],
    "report/evaluation.json": ["compare", "export", "finetune"],
    f"{CHECKPOINT}/training_state.pt": ["train"],
    f"{ZIP}:system_info.txt": ["report"],
    f"{ZIP}:pytorch_variables.pth": ["evaluate"],
    f"{ZIP}:_stable_baselines3_version": ["evaluate"],
}


# A folder in the place of a file that the command can do without: an older checkpoint, and an
# evaluation in the place of the model.
UNUSED = {(f"{CHECKPOINT}/model.zip", "a folder", "train"), (ZIP, "a folder", "compare")}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a tiny run."""
    logs = tmp_path_factory.mktemp("logs")
    np.savez(logs / "expert.npz", observations=np.zeros((4, 2)))
    return make_run(logs)


def damage(file, damaged):
    """Replace the file's content; a folder for None."""
    content = file.read_bytes()
    file.unlink()
    if damaged is None:
        file.mkdir()
    else:
        file.write_bytes(damaged(content))


def damage_member(file, name, damaged):
    """Replace the content of a zip's member; a folder for None."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = members.pop(name)
    members[f"{name}/" if damaged is None else name] = damaged(content) if damaged else b""
    with zipfile.ZipFile(file, "w") as archive:
        for each, content in members.items():
            archive.writestr(each, content)


def copy_of(saved, folder):
    """A run that may be damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    run = folder / "sac" / saved.name
    shutil.copytree(saved, run)
    return run


def words_of(command, run):
    """The words of a command that reads the run."""
    words = [command.split()[0], *COMMANDS[command]]
    path = run / "evaluation.json" if command == "plot evaluation.json" else run
    words += ["--resume", str(path)] if command == "train" else [str(path)]
    if command == "imitate":
        words += ["--trajectory", str(run.parents[1] / "expert.npz")]
    return words + (["-f", str(run.parents[1] / "new")] if command in ("train", "finetune") else [])


@contextmanager
def no_window(words):
    """The command ``view`` reads the run and then opens no window."""
    if words[0] != "view":
        yield
        return
    module = pytest.importorskip("sb3_diayn.evaluation.viewer", exc_type=ImportError)
    with patch.object(module, "require_display"), patch.object(module, "view_skills"):
        yield


def outcome_of(words):
    """Exit code of a command, and all that it printed."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out), warnings.catch_warnings(), no_window(words):
        warnings.simplefilter("ignore")
        code = main(words)  # raises what nobody has turned into a sentence
    return code, out.getvalue()


def check(saved, folder, place, kind, command):
    """A command fails because of a damaged file and names it, or can do without the file."""
    if command == "record":
        pytest.importorskip("imageio_ffmpeg")
    run = copy_of(saved, folder)
    np.savez(folder / "expert.npz", observations=np.zeros((4, 2)))
    name, _, member = place.partition(":")
    damaged = None if kind == "a folder" else (DAMAGES | SMALL_DAMAGES)[kind]
    if member:
        damage_member(run / name, member, damaged)
    else:
        damage(run / name, damaged)
    code, text = outcome_of(words_of(command, run))
    message = text.rpartition("error: ")[2]
    if kind in SMALL_DAMAGES:
        assert code == 0 or (code == 2 and str(run) in message), text
    elif place in READERS and (place, kind, command) not in UNUSED:
        assert code == 2 and str(run / name) in message, text
        assert "expected" in message or (kind == "a folder" and "Errno" in message)
    else:
        assert code == 0 or (code == 2 and str(run / name) in message), text


KINDS = [*DAMAGES, *SMALL_DAMAGES, "a folder"]
CASES = [(place, each) for place, names in (READERS | OPTIONAL).items() for each in names]
one_copy = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(one_copy, max_examples=40)
@given(case=st.sampled_from(CASES), kind=st.sampled_from(KINDS))
def test_a_damaged_file_is_named(saved, tmp_path, case, kind):
    place, command = case
    check(saved, tmp_path / "copy", place, kind, command)


@pytest.mark.expensive
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("place", "command"), CASES)
def test_every_damaged_file_is_named(saved, tmp_path, place, command, kind):
    check(saved, tmp_path / "copy", place, kind, command)


def entries(value, path=()):
    """Places of the values in a file, from the outermost to the innermost."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in pairs:
        yield (*path, key)
        if isinstance(each, (dict, list)) and len(path) < 3:
            yield from entries(each, (*path, key))


def with_value(file, draw, value):
    """Put a wrong value into a file of YAML or JSON."""
    is_json = file.suffix == ".json"
    content = json.loads(file.read_text()) if is_json else yaml.unsafe_load(file.read_text())
    content = dict(content)
    *outer, key = draw(st.sampled_from(list(entries(content))))
    place = content
    for each in outer:
        place = place[each]
    place[key] = value
    file.write_text(json.dumps(content) if is_json else yaml.dump(content))


VALUES = [None, 0, -1, 1.5, float("nan"), True, "x", "", [], [1], {}, {"a": 1}]
VALUE_CASES = [
    (f"{NAME}/config.yml", "play"),
    (f"{NAME}/config.yml", "imitate"),
    (f"{NAME}/args.yml", "play"),
    (f"{NAME}/args.yml", "export"),
    ("report/evaluation.json", "compare"),
    ("evaluation.json", "plot evaluation.json"),
]


@settings(one_copy, max_examples=30)
@given(case=st.sampled_from(VALUE_CASES), value=st.sampled_from(VALUES), data=st.data())
def test_a_wrong_value_leads_to_a_sentence(saved, tmp_path, case, value, data):
    name, command = case
    run = copy_of(saved, tmp_path / "copy")
    np.savez(tmp_path / "copy" / "expert.npz", observations=np.zeros((4, 2)))
    with_value(run / name, data.draw, value)
    code, text = outcome_of(words_of(command, run))
    assert code == 0 or (code == 2 and "expected" in text.rpartition("error: ")[2]), text


# -- files of other commands -----------------------------------------------------------------


FEW_KINDS = ["truncated", "garbage", "a mapping", "a folder"]


@pytest.mark.parametrize("kind", FEW_KINDS)
@pytest.mark.parametrize("name", ["run.json", "evaluation.json"])
def test_a_sweep_names_a_damaged_file_of_a_run(saved, tmp_path, name, kind):
    run, words = swept(tmp_path, saved)
    assert outcome_of(words)[0] == 0
    if (name, kind) == ("evaluation.json", "a folder"):
        pytest.skip("the run is not complete, and is made again")
    damage(run / name, DAMAGES.get(kind))
    code, text = outcome_of(words)
    assert code == 2 and str(run / name) in text.rpartition("error: ")[2], text


@pytest.mark.parametrize("command", ["", "sb3-diayn", "'", "sb3-diayn train --seed x", "a b c"])
def test_a_sweep_refuses_a_run_of_another_command(saved, tmp_path, command):
    run, words = swept(tmp_path, saved)
    (run / "run.json").write_text(json.dumps({"command": command}))
    code, text = outcome_of(words)
    assert code == 2 and f"holds a run of {command!r}" in text


@pytest.mark.parametrize("kind", FEW_KINDS)
@pytest.mark.parametrize("name", ["study.log", "study.db", "sac.yml", "expert.npz", "expert.npy"])
def test_a_damaged_file_of_an_option_is_named(saved, tmp_path, name, kind):
    file = tmp_path / name
    file.write_bytes(b"12345678")
    damage(file, DAMAGES.get(kind))
    words = {
        "study.log": ["tune", "--env", ENV, "--storage", str(file)],
        "study.db": ["tune", "--env", ENV, "--storage", f"sqlite:///{file.as_posix()}"],
        "sac.yml": ["train", "--env", ENV, "--conf-file", str(file)],
    }.get(name, ["imitate", str(saved), "--trajectory", str(file), "--no-films"])
    if words[0] != "imitate":
        words += ["-f", str(tmp_path / "logs"), "-n", "10"]
    if words[0] == "tune":
        words += ["--n-trials", "1"]
    code, text = outcome_of(words)
    assert code == 2 and str(file) in text.rpartition("error: ")[2], text


@pytest.mark.parametrize("name", [f"{NAME}/vecnormalize.pkl", f"{NAME}/config.yml", ZIP])
def test_the_traceback_comes_with_verbose(saved, tmp_path, name):
    run = copy_of(saved, tmp_path)
    damage(run / name, DAMAGES["truncated"])
    words = words_of("evaluate", run)
    assert "Traceback" not in outcome_of(words)[1]
    code, text = outcome_of([*words, "--verbose", "1"])
    assert code == 2 and "Traceback" in text and str(run / name) in text.rpartition("error: ")[2]
