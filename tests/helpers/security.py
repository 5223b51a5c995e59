"""
What of a zip and of a run's folder each command runs as code. A test tries every row;
``docs/tables/security.py`` makes the table of the documentation from them.
"""

import base64
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch as th
import yaml

MODEL, CONFIG, ARGS, STATISTICS = "the model", "config.yml", "args.yml", "vecnormalize.pkl"
BUFFER, STATE = "replay_buffer.pkl", "training_state.pt"
YAML = frozenset({CONFIG, ARGS})
OPENED = frozenset({MODEL, STATISTICS})
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Row:
    """
    :param words: the command, after ``sb3-diayn``, with ``RUN`` in the place of the run
    :param of_zip: what it runs of a zip that lies in no run's folder, and of the statistics next
        to it; None if it refuses such a zip
    :param of_folder: what it runs of a run's folder, of a checkpoint or of a zip in one
    :param remark: for the reader of the table
    """

    words: str
    of_zip: frozenset[str] | None
    of_folder: frozenset[str]
    remark: str = ""

    @property
    def command(self) -> str:
        """:return: name of the command"""
        return self.words.split()[0]


ROWS = [
    Row("play RUN", OPENED, OPENED | YAML),
    Row("view RUN", OPENED, OPENED | YAML),
    Row("evaluate RUN", OPENED, OPENED | YAML),
    Row("report RUN", OPENED, OPENED | YAML),
    Row("plot RUN", OPENED, OPENED | YAML),
    Row("plot evaluation.json", NOTHING, NOTHING, "`.npz` too"),
    Row("record RUN", OPENED, OPENED | YAML),
    Row("compare RUN", OPENED, OPENED | YAML, "the YAML only, if an evaluation of the run fits"),
    Row("compare evaluation.json", NOTHING, NOTHING, "`.npz` too, and runs without a model"),
    Row("push RUN", OPENED, OPENED | YAML),
    Row("export RUN", OPENED, OPENED | YAML),
    Row("finetune RUN", OPENED, OPENED | YAML),
    Row("imitate RUN", OPENED, OPENED | YAML, "nothing of the expert's file"),
    Row("imitate RUN --no-films", NOTHING, YAML, "nothing of the expert's file"),
    Row("train --resume RUN", None, OPENED | YAML | {BUFFER, STATE}, "a zip needs its folder"),
    Row("sweep", NOTHING, NOTHING, "nothing of complete runs that it finds"),
]


def mark(path: str, pickled: bytes) -> Any:
    """Code that a file runs: it leaves a file behind, and gives what was there before."""
    Path(path).touch()
    return pickle.loads(pickled)


class Marked:
    """
    Is pickled as a call of :func:`mark`.

    :param path: the file that unpickling leaves behind
    :param pickled: the pickle of what unpickling gives
    """

    def __init__(self, path: Path, pickled: bytes) -> None:
        self.arguments = str(path), pickled

    def __reduce__(self) -> tuple[Any, ...]:
        """Same as pickle's."""
        return mark, self.arguments


def mark_zip(file: Path, marks: Path) -> None:
    """Make a model's zip run code when SB3 loads it."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(members["data"])
    payload = base64.b64encode(pickle.dumps(Marked(marks / MODEL, pickle.dumps(0)))).decode()
    data["marked"] = {":type:": "<class 'int'>", ":serialized:": payload}
    members["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def mark_pickle(file: Path, marks: Path) -> None:
    """Make a pickle run code when it is opened."""
    file.write_bytes(pickle.dumps(Marked(marks / file.name, file.read_bytes())))


def mark_run(folder: Path, marks: Path) -> None:
    """Make every file of a run's folder run code when it is opened."""
    for file in folder.rglob("*.zip"):
        mark_zip(file, marks)
    for file in folder.rglob("*.pkl"):
        mark_pickle(file, marks)
    for file in folder.rglob(STATE):
        state = th.load(file, weights_only=False)
        th.save({**state, "marked": Marked(marks / STATE, pickle.dumps(0))}, file)
    for name, key in ((CONFIG, "gamma"), (ARGS, "verbose")):
        (file,) = folder.glob(f"*/{name}")
        content = yaml.unsafe_load(file.read_bytes())
        content[key] = Marked(marks / name, pickle.dumps(content[key]))
        file.write_text(yaml.dump(content), encoding="utf-8")
