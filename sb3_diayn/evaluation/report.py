"""
The report on a run: a folder with a page, figures, films and, on request, a model card.

It needs the extra ``report``. Nothing in the folder refers to the network or to other folders.
"""

import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_diayn.discriminator import Discriminator
from sb3_diayn.evaluation.coordinates import coordinate_labels
from sb3_diayn.evaluation.diagnosis import Diagnosis, diagnose
from sb3_diayn.evaluation.pages import number, render, without_folders
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import make_folder, replacing, require_extra
from sb3_diayn.observations import is_vector

__all__ = ["Description", "headlines", "model_card", "number", "save_figures", "write_report"]

MakeFilms = Callable[[Path], Mapping[int, Path]]

NO_FILMS = "Films were left out."
GRID_FILM = "replay.mp4"  # the hub shows a film of this name next to the model


@dataclass(frozen=True)
class Description:
    """
    What was trained and how, in words for a reader.

    :param title: name of the run
    :param algo: class of the model, for example ``SAC``
    :param env_id: id of the environment
    :param facts: further facts about the training, by name
    :param hyperparams: hyperparameters by name
    :param download: command that brings the run to this machine; empty for a run that is here
    :param play: command that plays the run, to which ``--skill 3`` is added
    :param enjoy: the zoo's command that plays the run; None if the zoo cannot
    :param snippet: Python code that plays the run, with ``SKILL`` in place of the skill
    :param place: what lies in the folder in which the commands and the code work; empty for unknown
    """

    title: str
    algo: str
    env_id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    download: str = ""
    play: str = ""
    enjoy: str | None = None
    snippet: str = ""
    place: str = ""

    def commands(self, skill: int) -> str:
        """
        :param skill: index of a skill
        :return: the commands that bring the run here and play it, one a line
        """
        enjoy = f"DIAYN_SKILL={skill} {self.enjoy}" if self.enjoy else ""
        return "\n".join(filter(None, [self.download, f"{self.play} --skill {skill}", enjoy]))


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
    Write ``index.html``, ``report.md``, ``evaluation.json``, figures and films. They are made in a
    temporary folder and moved at the end, the page last: a failure before leaves an older report
    whole.

    :param folder: where to, created if need be
    :param evaluation: what was measured
    :param description: what was trained and how
    :param history: logged values of the training by name, see
        :func:`sb3_diayn.model_zip.training_history`; None leaves its figure out
    :param discriminator: of the model, whose regions are drawn if the observation has two numbers
    :param films: called with a folder, makes a film of each skill there and returns them. If it
        fails, the report is made without films and says why
    :param why_no_films: what the page says if ``films`` is None
    :param card: a description for people elsewhere: then a model card for the Hugging Face hub,
        ``README.md``, is written too
    :return: the page
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if the folder cannot be written
    """
    folder = make_folder(Path(folder))
    # In the same folder, since renaming is atomic only within one file system.
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
        with require_extra("report"):
            from sb3_diayn.evaluation.svg import draw_paths
        context |= {"paths": draw_paths(evaluation), "headlines": headlines(evaluation)}
        context["skills"] = _rows(context)
        _write(staging / "report.md", render("report.md", context))
        if card:
            markdown = render("report.md", context | {"about": card})
            _write(staging / "README.md", model_card(card, evaluation, markdown))
        _write(staging / "index.html", render("report.html", context))
        _publish(staging, folder)
    return folder / "index.html"


def headlines(evaluation: SkillEvaluation) -> dict[str, tuple[str, str]]:
    """
    :param evaluation: what was measured
    :return: the most important numbers, by name: the number, and a remark
    """
    means = evaluation.task_returns.mean(axis=1)
    n_skills, bound = evaluation.n_skills, evaluation.discriminator_bound
    own = f"the discriminator's own bound, {number(bound)} of {math.log(n_skills):.2f} nats"
    coordinates = " and ".join(coordinate_labels(evaluation.info))
    numbers = {
        "Distinct skills": (_count(evaluation.distinct_skills, n_skills), _distinct(evaluation)),
        "Known to D": (_count(evaluation.recognized_skills, n_skills), own),
        "Accuracy": (f"{evaluation.accuracy.mean():.0%}", f"guessing: {1 / n_skills:.0%}"),
        "Calibration error": (number(evaluation.calibration_error), "0 is perfect"),
        "Best task return": (number(means.max()), f"skill {means.argmax()}"),
        "Median task return": (number(float(np.median(means))), "over skills"),
        "Coverage": (f"{evaluation.info['total_coverage']} cells", coordinates),
    }
    if not evaluation.has_probabilities:
        del numbers["Known to D"], numbers["Calibration error"]
    return numbers


def _count(value: float, n_skills: int) -> str:
    if np.isnan(value):
        return "n/a"
    return f"{'< 1' if value < 1 else number(value)} of {n_skills}"


def _distinct(evaluation: SkillEvaluation) -> str:
    """The remark on the number of distinct skills."""
    if np.isnan(evaluation.held_out_bound):
        return str(evaluation.info.get("why_no_held_out", "an evaluation of version 0.1.0"))
    most = math.log(evaluation.n_skills)
    remarks = [f"held-out classifier, {number(evaluation.held_out_bound)} of {most:.2f} nats"]
    if not np.array_equal(evaluation.held_out_log_q, evaluation.held_out_log_q_everything):
        everything = number(evaluation.distinct_skills_everything)
        remarks.append(f"{everything} with the whole observation")
    if not np.isnan(evaluation.distinct_skills_untrained):
        remarks.append(f"untrained: {evaluation.distinct_skills_untrained:.1f}")
    return "; ".join(remarks)


def model_card(description: Description, evaluation: SkillEvaluation, markdown: str) -> str:
    """
    :param description: what was trained and how
    :param evaluation: what was measured
    :param markdown: the text of the card
    :return: the text, below metadata for the Hugging Face hub as ``huggingface_sb3`` writes them
    :raises ImportError: if the extra ``report`` is missing
    """
    with require_extra("report"):
        from huggingface_hub import EvalResult, ModelCardData
    returns = evaluation.task_returns
    best = int(returns.mean(axis=1).argmax())
    metrics: dict[str, tuple[str, float | str]] = {
        "mean_reward": (
            f"mean_reward (skill {best}, the best)",
            f"{returns[best].mean():.2f} +/- {returns[best].std():.2f}",
        ),
        "accuracy": (
            f"{evaluation.recognizer.removeprefix('the ')} accuracy",
            round(float(evaluation.accuracy.mean()), 4),
        ),
    }
    if not np.isnan(evaluation.distinct_skills):  # metadata have no word for unknown
        metrics["distinct_skills"] = ("distinct skills", round(evaluation.distinct_skills, 2))
    task, env_id = "reinforcement-learning", _tag(description.env_id)
    objective = str(evaluation.info.get("objective", "diayn"))
    data = ModelCardData(
        library_name="stable-baselines3",
        tags=[env_id, f"deep-{task}", task, "stable-baselines3", "skill-discovery", objective],
        model_name=_tag(description.algo),
        eval_results=[
            EvalResult(
                task_type=task,
                task_name=task,
                dataset_type=env_id,
                dataset_name=env_id,
                metric_type=metric,
                metric_name=name,
                metric_value=value,
                verified=False,
            )
            for metric, (name, value) in metrics.items()
        ],
    )
    return f"---\n{data.to_yaml()}\n---\n\n{markdown}"


def _tag(name: str) -> str:
    """A name in the letters of a tag. Readers other than the hub show the metadata as text."""
    return re.sub(r"[^\w./:+-]+", "_", name)


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
    with require_extra("report"):
        from sb3_diayn.evaluation import plotting
    of_evaluation: dict[str, tuple[str, Callable[..., Any]]] = {
        "trajectories.png": ("Paths of the skills", plotting.plot_trajectories),
        "task_returns.png": ("Task return of each skill", plotting.plot_task_returns),
        "confusion.png": (
            f"Skills that {evaluation.recognizer} recognises",
            plotting.plot_confusion,
        ),
        "coverage.png": ("States that each skill visits", plotting.plot_coverage),
    }
    figures = {
        file: (title, partial(plot, evaluation)) for file, (title, plot) in of_evaluation.items()
    }
    if np.isfinite(evaluation.calibration_error):
        plot = partial(plotting.plot_reliability, evaluation)
        figures["reliability.png"] = "How sure the discriminator is, and how often right", plot
    logged = [history[name] for name in plotting.PROGRESS_COLUMNS] if history else [np.nan]
    if history and np.isfinite(logged).all(axis=0).sum() > 1:  # one point makes no line
        plot = partial(plotting.plot_training, history, n_skills=evaluation.n_skills)
        figures["training.png"] = "Training of the discriminator", plot
    if discriminator is not None and _has_regions(discriminator):
        plot = partial(plotting.plot_discriminator_regions, discriminator, evaluation)
        figures["regions.png"] = "Regions in which the discriminator recognises each skill", plot
    width = max(6.4, 0.2 * evaluation.n_skills)
    for file, (_, plot) in figures.items():
        _save_figure(folder / file, plot, width)
    return {file: title for file, (title, _) in figures.items()}


def _has_regions(discriminator: Discriminator) -> bool:
    space = discriminator.observation_space
    is_plane = is_vector(space) and space.shape == (2,)  # MultiBinary(2) has this shape too
    return is_plane and discriminator.has_probabilities


def _save_figure(file: Path, plot: Callable[..., Any], width: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.8), layout="constrained")  # not in pyplot's list
    plot(ax=figure.subplots())
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _make_films(folder: Path, films: MakeFilms) -> tuple[dict[int, dict[str, str]], str]:
    """Names of each skill's film and poster; if there are none, the reason."""
    try:
        with require_extra("report"):
            from sb3_diayn.evaluation.video import record_grid, save_poster

        made = films(folder / "films")
        posters = {skill: save_poster(film) for skill, film in made.items()}
        if made:
            record_grid(made, folder / GRID_FILM)
    except (RuntimeError, ImportError, OSError, gym.error.Error) as error:
        shutil.rmtree(folder / "films", ignore_errors=True)
        (folder / GRID_FILM).unlink(missing_ok=True)
        return {}, without_folders(f"Films could not be made: {error}")
    return {
        skill: {
            "film": film.relative_to(folder).as_posix(),
            "poster": posters[skill].relative_to(folder).as_posix(),
        }
        for skill, film in made.items()
    }, ""


def _rows(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table of skills."""
    diagnoses: list[Diagnosis] = context["diagnoses"]
    columns, paths = context["evaluation"].table(), context["paths"]
    return [
        {name: values[skill].item() for name, values in columns.items()}
        | {"kinds": [d.kind for d in diagnoses if skill in d.skills]}
        | {"color": color, "is_selected": skill in paths.selected}
        | context["films"].get(skill, {})
        for skill, color in enumerate(paths.colors)
    ]


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _publish(staging: Path, folder: Path) -> None:
    """Move each file to its place, the page last, and delete films of an older report."""
    files = [file.relative_to(staging) for file in staging.rglob("*") if file.is_file()]
    for old in (folder / "films").glob("skill_*.*"):
        if old.relative_to(folder) not in files:
            old.unlink()
    for file in sorted(files, key=lambda file: file.name == "index.html"):
        (folder / file).parent.mkdir(exist_ok=True)
        (staging / file).replace(folder / file)
