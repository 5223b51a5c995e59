"""
One folder to look at: what was trained, what is wrong with it, each skill, and how to use it next.

It needs the extra ``report``. Nothing in the folder refers to the network or to anything outside.
"""

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, run
from typing import Any

import gymnasium as gym
import numpy as np
import yaml
from gymnasium import spaces

from sb3_diayn.discriminator import Discriminator
from sb3_diayn.evaluation.diagnosis import Diagnosis, diagnose
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import replacing
from sb3_diayn.observations import is_vector

__all__ = ["headlines", "model_card", "number", "save_figures", "write_report"]


@dataclass(frozen=True)
class Description:
    """
    What was trained and how, in words for a reader.

    :param title: name of the run
    :param algo: class of the model, for example ``SAC``
    :param env_id: id of the environment
    :param facts: what else to tell of the training, by name
    :param hyperparams: hyperparameters by name
    :param play: command that plays the run, to which ``--skill 3`` is added
    :param enjoy: the zoo's command that plays the run, None where the zoo cannot
    :param snippet: Python code that plays it, in which ``SKILL`` stands for the skill
    """

    title: str
    algo: str
    env_id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    play: str = ""
    enjoy: str | None = None
    snippet: str = ""


NO_FILMS = "Films were left out."


# The hub shows a film of this name beside the model.
GRID_FILM = "replay.mp4"


POSTER_WIDTH = 240


MakeFilms = Callable[[Path], Mapping[int, Path]]


def write_report(
    folder: str | Path,
    evaluation: SkillEvaluation,
    *,
    description: Description,
    history: Mapping[str, Any] | None = None,
    discriminator: Discriminator | None = None,
    films: MakeFilms | None = None,
    why_no_films: str = NO_FILMS,
    card: Description | None = None,
) -> Path:
    """
    Write ``index.html``, ``report.md``, ``evaluation.json``, figures and films. All is made aside
    and moved in at the end, the page last: whatever fails before leaves an older report whole.

    :param folder: where to, created if need be
    :param evaluation: what was measured
    :param description: what was trained and how
    :param history: logged values of the training by name, see
        :func:`sb3_diayn.model_zip.training_history`; None leaves its figure out
    :param discriminator: the model's, for its regions where the observation has two numbers
    :param films: called with a folder, makes a film of each skill there; if it cannot, the report
        is made without and says why
    :param why_no_films: what the page says if ``films`` is None
    :param card: what to tell people elsewhere: ``README.md``, a model card for the Hugging Face
        hub, is then written too
    :return: the page
    :raises ImportError: if the extra ``report`` is missing
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Within the folder, since renaming is atomic on one file system only.
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as name:
        staging = Path(name)
        evaluation.save(staging / "evaluation.json")
        made, reason = _make_films(staging, films) if films else ({}, why_no_films)
        context = {
            "about": description,
            "evaluation": evaluation,
            "diagnoses": diagnose(evaluation),
            "figures": save_figures(
                staging, evaluation, history=history, discriminator=discriminator
            ),
            "films": made,
            "why_no_films": reason,
            "grid": GRID_FILM if (staging / GRID_FILM).is_file() else None,
        }
        context |= {"skills": _rows(context), "headlines": headlines(evaluation)}
        _write(staging / "report.md", _render("report.md", context))
        if card:
            markdown = _render("report.md", context | {"about": card})
            _write(staging / "README.md", model_card(card, evaluation, markdown))
        _write(staging / "index.html", _render("report.html", context))
        _publish(staging, folder)
    return folder / "index.html"


def headlines(evaluation: SkillEvaluation) -> dict[str, tuple[str, str]]:
    """
    :param evaluation: what was measured
    :return: the numbers to see first, by name: the number, and what it says
    """
    means = evaluation.task_returns.mean(axis=1)
    n_skills = evaluation.n_skills
    nats = f"{number(evaluation.mutual_information)} of {math.log(n_skills):.2f} nats"
    distinct = "< 1" if evaluation.distinct_skills < 1 else number(evaluation.distinct_skills)
    coordinates = " and ".join(evaluation.info["coordinates"]).replace("_", " ")
    return {
        "Distinct skills": (f"{distinct} of {n_skills}", nats),
        "Accuracy": (f"{evaluation.accuracy.mean():.0%}", f"guessing: {1 / n_skills:.0%}"),
        "Best task return": (number(means.max()), f"skill {means.argmax()}"),
        "Median task return": (number(float(np.median(means))), "over skills"),
        "Coverage": (f"{evaluation.info['total_coverage']} cells", coordinates),
    }


def number(value: float) -> str:
    """
    :param value: any number
    :return: it, with three digits that count
    """
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}") if "e" not in text else text


def model_card(description: Description, evaluation: SkillEvaluation, markdown: str) -> str:
    """
    :param description: what was trained and how
    :param evaluation: what was measured
    :param markdown: the text of the card
    :return: the text below the metadata that the Hugging Face hub reads, as ``huggingface_sb3``
        writes them for other models
    """
    returns = evaluation.task_returns
    best = int(returns.mean(axis=1).argmax())
    reward = f"{returns[best].mean():.2f} +/- {returns[best].std():.2f}"
    metrics = [
        ("mean_reward", f"mean_reward (skill {best}, the best)", reward),
        ("distinct_skills", "distinct skills", round(evaluation.distinct_skills, 2)),
        ("accuracy", "discriminator accuracy", round(float(evaluation.accuracy.mean()), 4)),
    ]
    task = "reinforcement-learning"
    result = {
        "task": {"type": task, "name": task},
        "dataset": {"type": description.env_id, "name": description.env_id},
        "metrics": [
            {"type": kind, "name": name, "value": value, "verified": False}
            for kind, name, value in metrics
        ],
    }
    tags = [description.env_id, f"deep-{task}", task, "stable-baselines3", "skill-discovery"]
    metadata = {
        "library_name": "stable-baselines3",
        "tags": [*tags, "diayn"],
        "model-index": [{"name": description.algo, "results": [result]}],
    }
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n{markdown}"


def save_figures(
    folder: Path,
    evaluation: SkillEvaluation,
    *,
    history: Mapping[str, Any] | None = None,
    discriminator: Discriminator | None = None,
) -> dict[str, str]:
    """
    :param folder: an existing folder
    :param evaluation: what to draw
    :param history: logged values of the training by name; None leaves its figure out
    :param discriminator: whose regions to draw where the observation has two numbers, or None
    :return: title of each figure by the name of its file
    """
    from sb3_diayn.evaluation import plotting

    draw: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "trajectories.png": (
            "Paths of the skills",
            lambda ax: plotting.plot_trajectories(evaluation, ax=ax),
        ),
        "task_returns.png": (
            "Task return of each skill",
            lambda ax: plotting.plot_task_returns(evaluation, ax=ax),
        ),
        "confusion.png": (
            "What the discriminator takes each skill for",
            lambda ax: plotting.plot_confusion(evaluation, ax=ax),
        ),
        "coverage.png": (
            "States that each skill visits",
            lambda ax: plotting.plot_coverage(evaluation, ax=ax),
        ),
    }
    logged = [history[name] for name in plotting.PROGRESS_COLUMNS] if history else [np.nan]
    if history and np.isfinite(logged).all(axis=0).sum() > 1:  # one point is no line
        draw["training.png"] = (
            "Training of the discriminator",
            lambda ax: plotting.plot_training(history, n_skills=evaluation.n_skills, ax=ax),
        )
    if discriminator is not None and _is_plane(discriminator.observation_space):
        draw["regions.png"] = (
            "Where the discriminator sees which skill",
            lambda ax: plotting.plot_discriminator_regions(discriminator, evaluation, ax=ax),
        )
    width = max(6.4, 0.2 * evaluation.n_skills)
    for file, (_, plot) in draw.items():
        _save_figure(folder / file, plot, width)
    return {file: title for file, (title, _) in draw.items()}


def _is_plane(space: spaces.Space[Any]) -> bool:
    return is_vector(space) and space.shape == (2,)  # two switches have that shape too


def _save_figure(file: Path, plot: Callable[[Any], Any], width: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.8), layout="constrained")  # of no window, freed by itself
    plot(figure.subplots())
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _make_films(folder: Path, films: MakeFilms) -> tuple[dict[int, dict[str, str]], str]:
    """Names of each skill's film and its still picture; without any, the reason."""
    try:
        from sb3_diayn.evaluation.video import record_grid

        made = films(folder / "films")
        if made:
            record_grid(made, folder / GRID_FILM)
        for film in made.values():
            _save_poster(film)
    except (RuntimeError, ImportError, OSError, gym.error.Error) as error:
        shutil.rmtree(folder / "films", ignore_errors=True)
        (folder / GRID_FILM).unlink(missing_ok=True)
        return {}, f"Films could not be made: {error}"
    names = {skill: film.relative_to(folder) for skill, film in made.items()}
    return {
        skill: {"film": name.as_posix(), "poster": name.with_suffix(".jpg").as_posix()}
        for skill, name in names.items()
    }, ""


def _save_poster(film: Path) -> None:
    """The frame that looks least like the others, small."""
    from imageio_ffmpeg import get_ffmpeg_exe  # type: ignore[import-untyped]

    options = ["-vf", f"thumbnail,scale={POSTER_WIDTH}:-2", "-frames:v", "1", "-update", "1"]
    command = [get_ffmpeg_exe(), "-y", "-v", "error", "-i", str(film), *options]
    run([*command, str(film.with_suffix(".jpg"))], stdin=DEVNULL, check=False)


def _rows(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the table tells of each skill."""
    from matplotlib.colors import to_hex

    from sb3_diayn.evaluation.plotting import skill_colors

    diagnoses: list[Diagnosis] = context["diagnoses"]
    columns = context["evaluation"].table()
    colors = skill_colors(context["evaluation"].n_skills)
    return [
        {name: values[skill].item() for name, values in columns.items()}
        | {"kinds": [d.kind for d in diagnoses if skill in d.skills]}
        | {"color": to_hex(color), **context["films"].get(skill, {})}
        for skill, color in enumerate(colors)
    ]


def _render(template: str, context: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    env = Environment(
        loader=PackageLoader("sb3_diayn.evaluation"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["number"] = number
    return env.get_template(template).render(context)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _publish(staging: Path, folder: Path) -> None:
    """Move each file to its place, the page last, and drop films of an older report."""
    files = [file.relative_to(staging) for file in staging.rglob("*") if file.is_file()]
    for old in (folder / "films").glob("skill_*.*"):
        if old.relative_to(folder) not in files:
            old.unlink()
    for file in sorted(files, key=lambda file: file.name == "index.html"):
        (folder / file).parent.mkdir(exist_ok=True)
        (staging / file).replace(folder / file)
