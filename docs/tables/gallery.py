"""
The gallery: films and figures of every run in ``zoo_configs/results`` that has its model.

    MUJOCO_GL=egl python -m docs.tables.gallery            # all films and figures, and the page
    MUJOCO_GL=egl python -m docs.tables.gallery Hopper-v5  # films and figures of some environments
    python -m docs.tables.gallery page                     # the page alone

A new run with a zip gets its place without a change here. ``REMARKS`` says what its film shows.
"""

import csv
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import gymnasium as gym
import numpy as np

from docs.tables import tables
from docs.tables.reference_tables import READS, REFERENCES, RESULTS, ROOT
from docs.tables.tables import table, text
from sb3_diayn.evaluation.results import SkillEvaluation

PAGE = ROOT / "docs" / "pages" / "gallery.md"
BEGIN = "<!-- table: python -m docs.tables.gallery -->"
MEDIA = PAGE.parent / "images" / "gallery"
DRAWN = PAGE.parent / "tables" / "gallery.csv"  # of which evaluation each exhibit shows
README_FILM = PAGE.parent / "images" / "hopper_skills.webp"
README_RUN, README_SKILLS = RESULTS / "sac" / "Hopper-v5_1", (17, 7, 12, 5, 9, 14)
MAX_SKILLS = 6  # of a film

SEED = (  # the environments of the document that the project began with
    "Reacher-v5",
    "Ant-v5",
    "HalfCheetah-v5",
    "Hopper-v5",
    "BipedalWalker-v3",
    "MountainCarContinuous-v0",
)
TASKS = tuple(sorted(env_id for env_id in gym.registry if env_id.startswith("sb3_diayn/")))
ENVIRONMENTS = (*SEED, *(env_id for env_id in REFERENCES if env_id not in SEED), *TASKS)
# Tasks that show the skills of a run in another environment.
BORROWED = {
    "sb3_diayn/HalfCheetahHurdle-v0": "velocity/ppo/HalfCheetah-v5_1",
    "sb3_diayn/AntWaypoints-v0": "position/ppo/Ant-v5_1",
}
# What somebody saw in a film, by the beginning of its file's name.
REMARKS = {
    "sac_Reacher-v5_1": (
        "Skill 0 turns the arm around its base, and skill 1 keeps it on one side. Neither aims at "
        "the target, the red point."
    ),
    "position_ppo_Ant-v5_1": "Skill 3 falls on its back and crawls. The others walk on their feet.",
    "displacement_ppo_Ant-v5_1": "All walk on their feet, each in a direction of its own.",
    "velocity_ppo_HalfCheetah-v5_1": (
        "Skills 0 and 2 move forward, skill 0 often on its face with the hind leg in the air. "
        "Skills 1, 3 and 4 run backward on their feet."
    ),
    "displacement_ppo_Hopper-v5_1": (
        "Skills 0, 1 and 4 hop forward, and skill 0 falls in the end. Skill 2 falls early, and "
        "skill 3 stands."
    ),
    "displacement_ppo_Swimmer-v5_1": "All swim in the first seconds, then bend and drift.",
    "displacement_ppo_Walker2d-v5_1": (
        "Skills 2 and 3 go forward with one leg drawn up, and skill 3 falls in the end. Skills 1 "
        "and 4 go backward with their legs apart, and skill 0 falls early."
    ),
    "displacement_ppo_HalfCheetah-v5_1": (
        "Skills 0, 1 and 2 run backward on their feet. Skill 3 slides forward on its face, and "
        "skill 4 falls on its back here, as it seldom does in the evaluation."
    ),
    "sac_Hopper-v5_1": (
        "Skill 14 holds a pose, and skill 17 rocks on its foot. The others fall, each in its own "
        "way."
    ),
    "ppo_Hopper-v5_1": "Each skill holds a pose of its own. Skill 15 falls in some episodes.",
    "films_ppo_BipedalWalker-v3_1": (
        "Skill 22 falls, as skill 6 does in the evaluation. The others brace their legs and hold "
        "a pose: distinct, but not gaits."
    ),
    "sac_MountainCarContinuous-v0_1": (
        "Skills 10, 12 and 17 reach the flag. Skill 13 swings, skill 19 stays on the left slope, "
        "and skill 15 stops near the bottom."
    ),
    "ppo_MountainCarContinuous-v0_1": (
        "Skills 0, 4, 10 and 19 reach the flag, each at another time. Skills 11 and 12 rock on the "
        "left and on the right slope. There is a picture of every 16th step of the environment, so "
        "the last one can be short of the flag."
    ),
    "sac_Pendulum-v1_1": (
        "Skill 1 lets the pendulum hang, and skill 2 keeps it nearly upright. The others swing it "
        "or turn it over."
    ),
    "sac_InvertedPendulum-v5_1": (
        "The environment has a black background. Skill 1 balances the pole. The others drop it, "
        "and skills 6, 9 and 13 drive out of the picture."
    ),
    "position_ppo_Ant-v5_1_AntWaypoints-v0": (
        "No waypoint, a green disc, is reached in these six seconds. Skill 3 lies on its back."
    ),
    "velocity_ppo_HalfCheetah-v5_1_HalfCheetahHurdle-v0": (
        "Skill 0 gets stuck at the first hurdle, skill 2 stops in front of it. The others run "
        "away from it."
    ),
    "tasks_ppo_sb3_diayn-PointBox-v0_1": "Each of these skills goes to its own place at the wall.",
    "tasks_ppo_sb3_diayn-PointHallway-v0_1": (
        "Skills 1, 8 and 9 leave the corridor for three parts of the room, skill 4 is slow. Skills "
        "2 and 7 stay at the start. No skill touches the goal, the green disc."
    ),
    "tasks_ppo_sb3_diayn-PointUMaze-v0_1": (
        "Skill 2 gets furthest, to the second bend. No skill touches the goal, the green disc."
    ),
}
FIGURES = {
    "training": "Running log q(z|s') and accuracy of the training",
    "task_returns": "Task returns of each skill",
    "trajectories": "Paths of the skills",
}


@dataclass(frozen=True)
class Exhibit:
    """
    :param env_id: id of the environment that the skills are shown in
    :param run: folder of a run
    """

    env_id: str
    run: Path

    @property
    def name(self) -> str:
        """:return: what the names of its files begin with"""
        task = [self.env_id.rpartition("/")[2]] if self.env_id in BORROWED else []
        return "_".join([*self.run.relative_to(RESULTS).parts, *task])

    @property
    def has_model(self) -> bool:
        """:return: whether there can be a film"""
        return any(self.run.glob("*.zip"))

    @property
    def evaluation_file(self) -> Path:
        """:return: what was measured in this environment"""
        task = self.env_id.rpartition("/")[2]
        return self.run / f"evaluation{f'_{task}' if self.env_id in BORROWED else ''}.json"

    @property
    def digest(self) -> str:
        """:return: what tells one evaluation from another, in 12 digits"""
        return hashlib.sha256(self.evaluation_file.read_bytes()).hexdigest()[:12]

    @cached_property
    def evaluation(self) -> SkillEvaluation:
        """:return: the content of ``evaluation_file``"""
        return SkillEvaluation.load(self.evaluation_file)

    @property
    def film(self) -> Path | None:
        """:return: the film, if there can be one"""
        return MEDIA / f"{self.name}.mp4" if self.has_model else None

    @property
    def figures(self) -> dict[str, Path]:
        """:return: the file of each figure; of a borrowed run without the one of its training"""
        names = [name for name in FIGURES if name != "training" or self.env_id not in BORROWED]
        return {name: MEDIA / f"{self.name}_{name}.webp" for name in names}

    @property
    def files(self) -> list[Path]:
        """:return: the film, if there is one, and the figures"""
        return [*filter(None, [self.film]), *self.figures.values()]


def exhibits(env_id: str, results: Path = RESULTS) -> list[Exhibit]:
    """
    :param env_id: id of an environment
    :param results: a folder with log folders of the zoo
    :return: its runs that have their models, or else the first one of the main table
    """
    if env_id in BORROWED:
        return [Exhibit(env_id, results / BORROWED[env_id])]
    files = sorted(results.rglob(f"{env_id.replace('/', '-')}_*/run.json"))
    shown = [Exhibit(env_id, file.parent) for file in files]
    with_model = [exhibit for exhibit in shown if exhibit.has_model]
    return with_model or sorted(shown, key=lambda exhibit: len(exhibit.run.parts))[:1]


def choose_skills(evaluation: SkillEvaluation, n: int = MAX_SKILLS) -> dict[int, str]:
    """
    :param evaluation: of any skills
    :param n: how many of them at most
    :return: why a skill was chosen, by skill: the best mean task return, the largest mean distance
        from start to end, and then again and again the mean state that is farthest from the mean
        states of all chosen skills
    """
    returns = evaluation.task_returns.mean(axis=1)
    reasons: dict[int, str] = {}
    if returns.min() < returns.max():
        reasons[int(returns.argmax())] = "best return"
    traveller = int(evaluation.displacements.mean(axis=1).argmax())
    reasons[traveller] = ", ".join([*filter(None, [reasons.get(traveller)]), "most travelled"])
    distances = np.nan_to_num(evaluation.mean_state_distances)
    while len(reasons) < min(n, evaluation.n_skills):
        nearest = distances[list(reasons)].min(axis=0)
        nearest[list(reasons)] = -1
        reasons[int(nearest.argmax())] = "most different"
    return reasons


def with_sections() -> str:
    """:return: the page as it has to be"""
    return tables.with_tables(PAGE, BEGIN, ["\n\n".join(_sections())])


def _sections() -> Iterator[str]:
    for env_id in ENVIRONMENTS:
        yield f"## {env_id.removeprefix('sb3_diayn/')}"
        shown = exhibits(env_id)
        if not shown:
            yield "There is no run of this environment."
        for exhibit in shown:
            if len(shown) > 1:
                yield f"### {_title(exhibit)}"
            yield from _parts(exhibit)


def _title(exhibit: Exhibit) -> str:
    reads = [name for name, results in READS.items() if exhibit.run.is_relative_to(results)]
    skills = f"{exhibit.evaluation.n_skills} skills"
    return ", ".join([exhibit.evaluation.info["algo"], skills, *(f"by {name}" for name in reads)])


def _parts(exhibit: Exhibit) -> Iterator[str]:
    steps, run = exhibit.evaluation.info["num_timesteps"], exhibit.run.relative_to(ROOT)
    yield f"{_title(exhibit)}, {steps:,} steps: `{run.as_posix()}`"
    if exhibit.env_id in BORROWED:
        trained_in = run.name.rpartition("_")[0]
        link = f"[{trained_in}](#{trained_in.lower()})"
        yield f"The skills were trained in {link}, not here, and this task has not changed them."
    if exhibit.film is None:
        yield "There is no film, since the model of this run is not in the repository."
    else:
        options = 'controls autoplay loop muted playsinline width="100%"'
        yield f'<video {options} src="../{_address(exhibit.film)}"></video>'
        yield _chosen(exhibit.evaluation)
    if exhibit.name in REMARKS:
        yield REMARKS[exhibit.name]
    yield "\n".join(
        f'![{FIGURES[name]}]({_address(file)}){{ style="width: min(100%, 17rem)" }}'
        for name, file in exhibit.figures.items()
    )


def _address(file: Path) -> str:
    return file.relative_to(PAGE.parent).as_posix()


def _chosen(evaluation: SkillEvaluation) -> str:
    values = evaluation.table()
    names = ("task_return", "length", "accuracy", "displacement")
    rows = [
        [skill, reason, *(text(float(values[name][skill])) for name in names)]
        for skill, reason in choose_skills(evaluation).items()
    ]
    head = ["skill", "chosen as", "task return", "steps", "recognised", "from start to end"]
    return table(head, rows)


def make(exhibit: Exhibit) -> None:
    """
    :param exhibit: whose film and figures to write, and its evaluation if that is missing
    """
    # The test of the page needs no library of films and figures.
    from docs.tables import gallery_media as media

    run, file = exhibit.run, exhibit.evaluation_file
    if not file.is_file():
        media.measure(file, run, exhibit.env_id)
    evaluation = exhibit.evaluation
    if exhibit.film is not None:
        skills, deterministic = list(choose_skills(evaluation)), evaluation.info["deterministic"]
        media.save_film(exhibit.film, run, exhibit.env_id, skills, deterministic=deterministic)
    if run == README_RUN:
        media.save_readme_film(README_FILM, run, README_SKILLS)
    media.save_run_figures(exhibit.figures, run, evaluation)


def read_drawn() -> dict[str, str]:
    """:return: the digest of the evaluation that the films and figures of each exhibit show"""
    with DRAWN.open(newline="", encoding="utf-8") as file:
        return {row["exhibit"]: row["evaluation"] for row in csv.DictReader(file)}


def main(env_ids: Sequence[str]) -> None:
    """
    Write films, figures and the page, and delete the files of runs that are gone.

    :param env_ids: whose films and figures to write; none for all
    """
    shown = [exhibit for env_id in ENVIRONMENTS for exhibit in exhibits(env_id)]
    MEDIA.mkdir(exist_ok=True)
    before, drawn = read_drawn(), {}
    for exhibit in shown:
        if not env_ids or exhibit.env_id in env_ids or not exhibit.evaluation_file.is_file():
            print(exhibit.name)
            make(exhibit)
            drawn[exhibit.name] = exhibit.digest
        elif exhibit.name in before:
            drawn[exhibit.name] = before[exhibit.name]
    with DRAWN.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("exhibit", "evaluation"), *drawn.items()])
    named = {file for exhibit in shown for file in exhibit.files}
    for file in set(MEDIA.iterdir()) - named:
        file.unlink()
    PAGE.write_text(with_sections(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
