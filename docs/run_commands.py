"""
Run the ``sb3-diayn`` commands of the README and the documentation, cut short, in an empty folder.

    python -m docs.run_commands              # all pages; ends with 1 and names what failed
    python -m docs.run_commands first_skills # some pages

``LEFT_OUT`` says which commands are not run, and why.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import dropwhile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PAGES = {file.stem: file for file in (ROOT / "README.md", *ROOT.glob("docs/pages/*.md"))}
# The runs that several pages speak of.
RUNS = ("Hopper-v5", "MountainCarContinuous-v0")
PLACEHOLDERS = {
    "$results": "zoo_configs/results",
    "RUN": "logs/sac/Hopper-v5_1",
    "ID": "Pendulum-v1",
}
# What makes a command short. Of an option that occurs twice, the last one counts.
SHORT = {
    "train": "-n 1500 --episodes 1 --no-films --num-threads 1 --no-progress",
    "sweep": "-n 1500 --seeds 1",
    "tune": "-n 1500 --n-trials 1 --n-evaluations 1",
    "finetune": "-n 200",
    "report": "--episodes 2 --film-steps 5",
    "play": "--episodes 1",
    "record": "--film-steps 5",
    "push": "--dry-run",
}
LEFT_OUT = {
    "view": "opens a window",
    "--render": "opens a window",
    "--backend": "needs a cluster",
    "--track": "needs an account",
    "envpool": "needs the extra envpool",
    "imitate": "needs the file of an expert",
    "my.yml": "is a file of the reader",
    "hopper-skills": "is a download",
    "my_envs": "is a package of the reader",
}


def commands(page: str) -> list[list[str]]:
    """
    :param page: in Markdown
    :return: the words after each ``sb3-diayn``, of the blocks, and of the text where it has
        arguments
    """
    found, variables = [], {}
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if assignment := re.fullmatch(r'(\w+)="([^()]*)"', line.strip()):
                variables[assignment[1]] = assignment[2]
            line = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), line)
            found += [shlex.split(part, comments=True) for part in line.split("&&")]
    found += map(shlex.split, re.findall(r"`(sb3-diayn \w+ [^`.]+)`", page))
    return [words[1:] for words in map(_without_environment, found) if words[:1] == ["sb3-diayn"]]


def _without_environment(words: list[str]) -> list[str]:
    """``A=1 command`` as ``command``."""
    return list(dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))


def shortened(words: Sequence[str]) -> list[str]:
    """
    :param words: after ``sb3-diayn``
    :return: the same command, of a few steps, without placeholders; its own options end before
        ``--``
    """
    pattern = r"\$results|\b(?:RUN|ID)\b"
    words = [re.sub(pattern, lambda name: PLACEHOLDERS[name[0]], word) for word in words]
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], *shlex.split(SHORT.get(words[0], "")), *words[end:]]


def why_left_out(words: Sequence[str]) -> str:
    """
    :param words: after ``sb3-diayn``, without placeholders
    :return: why a command cannot be run here; empty if it can
    """
    if any(re.fullmatch(r"[A-Z]+", word) for word in words):
        return "has a placeholder"
    found = (part for part in LEFT_OUT if any(word.startswith(part) for word in words))
    return next((LEFT_OUT[part] for part in found), "")


def main(names: Sequence[str]) -> int:
    """
    :param names: of pages; none for all
    :return: exit code
    """
    failed = []
    with TemporaryDirectory() as folder:
        Path(folder, "zoo_configs").symlink_to(ROOT / "zoo_configs")
        for env_id in RUNS:
            _run(["train", "--env", env_id, "--save-replay-buffer"], folder)
        done: list[list[str]] = []
        for name in names or sorted(PAGES):
            for words in commands(PAGES[name].read_text(encoding="utf-8")):
                if words in done:
                    continue
                done.append(words)
                line = shlex.join(["sb3-diayn", *words])
                if reason := why_left_out(shortened(words)):
                    print(f"{name}: left out, since it {reason}: {line}", flush=True)
                    continue
                error = _run(words, folder)
                print(f"{name}: {'FAILED' if error else 'ok'}: {line}\n{error}", flush=True)
                failed += [line] * bool(error)
    print("Failed:", *failed or ["none"], sep="\n")
    return int(bool(failed))


def _run(words: Sequence[str], folder: str) -> str:
    """What a command that fails says last; empty if it succeeds."""
    command = [sys.executable, "-m", "sb3_diayn", *shortened(words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stderr[-1000:] if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
