"""The result of an evaluation, and its files."""

import io
import json
from dataclasses import asdict, dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sb3_diayn.evaluation import metrics
from sb3_diayn.evaluation.pages import number
from sb3_diayn.files import require_extra, write_bytes

if TYPE_CHECKING:
    import pandas as pd


Array = npt.NDArray[Any]

EVALUATION_FORMAT = 2
# What evaluations of format 1 lack: it is NaN there, which means unknown.
SINCE_FORMAT_2 = (
    "held_out_log_q",
    "held_out_confusion",
    "held_out_log_q_everything",
    "untrained_log_q",
    "reliability",
)
# What some files of format 2 lack, too.
OPTIONAL = ("upside_down",)
SUFFIXES = (".json", ".npz")
MAX_HTML_ROWS = 10
# Headings of the table of skills.
COLUMNS = {
    "skill": "skill",
    "task_return": "task return",
    "length": "steps",
    "accuracy": "recognised",
    "log_q": "log q(z|s')",
    "held_out_log_q": "held-out log c(z|s')",
}
HTML_COLUMNS = COLUMNS | {"coverage": "cells"}
# Numbers of a discriminator with probabilities.
OF_PROBABILITIES = ("discriminator_bound", "mutual_information", "calibration_error")


def _unknown() -> Array:
    """Its shape depends on the number of skills, so the evaluation itself puts NaN there."""
    return np.empty(0)


@dataclass(repr=False)
class SkillEvaluation:
    """
    The measurements of K skills in E episodes each, as NumPy arrays. Logarithms are natural, so
    information is in nats.
    Paper: https://arxiv.org/abs/1802.06070

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper, SkillEvaluation, evaluate_skills
        >>> env = DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0"), n_skills=3)
        >>> model = PPO("MlpPolicy", env, n_steps=64).learn(64, callback=DIAYNCallback())
        >>> evaluation = evaluate_skills(model, env, n_episodes=2)
        >>> evaluation.task_returns.shape, evaluation.confusion.shape
        ((3, 2), (3, 3))
        >>> evaluation.held_out_bound < 1.1  # at most log 3 nats
        True
        >>> repr(evaluation).split(", ")[:3]  # a notebook shows a table
        ['SkillEvaluation(PPO', '3 skills', '2 episodes of each']
        >>> evaluation.save("evaluation.json")
        >>> SkillEvaluation.load("evaluation.json").distinct_skills == evaluation.distinct_skills
        True

    What is unknown is NaN: the numbers of the held-out classifier with a single episode of each
    skill, without scikit-learn and in files of version 0.1.0. ``info["why_no_held_out"]`` says why.
    METRA's phi has no probabilities, so ``log_q``, ``reliability`` and ``importance`` are NaN. It
    recognises a state by the skill along which it has moved farthest since the first step of the
    episode, and its ``skill_returns`` are that way in the end.

    :param info: what was evaluated and how: plain values by name
    :param task_returns: sum of the environment's own rewards, shape ``(K, E)``
    :param lengths: steps, shape ``(K, E)``
    :param skill_returns: sum of log q(z|s') - log p(z) in nats, shape ``(K, E)``
    :param log_q: mean log q(z|s') per skill in nats, shape ``(K,)``
    :param confusion: share of the states of each skill (row) that the discriminator recognises as
        each skill (column), shape ``(K, K)``
    :param paths: positions at equal steps through each episode, in the unit of the coordinates,
        shape ``(K, E, 100, 2)``; ``info["coordinates"]`` names the two
    :param distances: length of each episode's path, same unit, shape ``(K, E)``
    :param displacements: distance from the first position to the last, same unit, shape
        ``(K, E)``
    :param coverage: cells of the grid that each skill visits, shape ``(K,)``;
        ``info["cell_size"]`` is the edge of a cell and ``info["total_coverage"]`` the count of
        all skills together
    :param movement: how much each skill moves in the second half of its episodes, in standard
        deviations over all skills, shape ``(K,)``, see
        :func:`sb3_diayn.evaluation.metrics.movement`
    :param mean_state_distances: distance between the mean states of two skills, in the same
        standard deviations, shape ``(K, K)``
    :param sensitivity: how much the action depends on the skill at the same state: for ``Box``
        actions the standard deviation over skills as a share of the half range, for others the
        share of skills that do not choose the most frequent action; 0 if the policy ignores z
    :param importance: by how many nats log q falls when one coordinate of the observation is
        shuffled, shape ``(d,)``; for other observations than vectors, one key (or everything),
        named in ``info["parts"]``
    :param held_out_log_q: mean log c(z|s') per skill in nats of the held-out classifier, which
        reads what the discriminator reads, shape ``(K,)``, see
        :func:`sb3_diayn.evaluation.held_out.classify_held_out`
    :param held_out_confusion: mean probability that the held-out classifier gives to each skill
        (column) in the states of each skill (row), shape ``(K, K)``
    :param held_out_log_q_everything: as ``held_out_log_q``, of a held-out classifier that reads
        the whole observation, shape ``(K,)``
    :param untrained_log_q: as ``held_out_log_q``, for a policy that has learned nothing, shape
        ``(K,)``; NaN unless it was asked for
    :param reliability: how sure the discriminator is and how often it is right, see
        :func:`sb3_diayn.evaluation.metrics.reliability`, shape ``(10, 3)``
    :param upside_down: share of each skill's steps with the torso upside down, shape ``(K,)``; NaN
        where the orientation is unknown, see
        :func:`sb3_diayn.evaluation.coordinates.orientation_indices`
    """

    info: dict[str, Any]
    task_returns: Array
    lengths: Array
    skill_returns: Array
    log_q: Array
    confusion: Array
    paths: Array
    distances: Array
    displacements: Array
    coverage: Array
    movement: Array
    mean_state_distances: Array
    sensitivity: float
    importance: Array
    held_out_log_q: Array = field(default_factory=_unknown)
    held_out_confusion: Array = field(default_factory=_unknown)
    held_out_log_q_everything: Array = field(default_factory=_unknown)
    untrained_log_q: Array = field(default_factory=_unknown)
    reliability: Array = field(default_factory=_unknown)
    upside_down: Array = field(default_factory=_unknown)

    def __post_init__(self) -> None:
        for name in (*SINCE_FORMAT_2, *OPTIONAL):
            if getattr(self, name).size == 0:
                setattr(self, name, np.full(self._shape_of(name), np.nan))

    def _shape_of(self, name: str) -> tuple[int, ...]:
        k = self.n_skills
        return {"held_out_confusion": (k, k), "reliability": (metrics.N_BINS, 3)}.get(name, (k,))

    @property
    def n_skills(self) -> int:
        """:return: the number of skills, K"""
        return len(self.log_q)

    @property
    def recognizer(self) -> str:
        """:return: what recognises the skills, in words"""
        return "METRA's phi" if self.info.get("objective") == "metra" else "the discriminator"

    @property
    def has_probabilities(self) -> bool:
        """:return: whether it has a q(z|s')"""
        return not bool(np.isnan(self.log_q).all())

    @property
    def accuracy(self) -> Array:
        """:return: share of each skill's states that the discriminator recognises, ``(K,)``"""
        return self.confusion.diagonal()

    @property
    def held_out_bound(self) -> float:
        """
        :return: the held-out classifier's lower bound on I(S; Z) in nats, see
            :func:`sb3_diayn.evaluation.metrics.mutual_information`
        """
        return metrics.mutual_information(self.held_out_log_q, self.n_skills)

    @property
    def distinct_skills(self) -> float:
        """:return: the held-out bound as a number of skills, its exponential"""
        return float(np.exp(self.held_out_bound))

    @property
    def distinct_skills_everything(self) -> float:
        """:return: the same of the classifier that reads the whole observation"""
        log_q = self.held_out_log_q_everything
        return float(np.exp(metrics.mutual_information(log_q, self.n_skills)))

    @property
    def distinct_skills_untrained(self) -> float:
        """:return: the same as ``distinct_skills``, of a policy that has learned nothing"""
        return float(np.exp(metrics.mutual_information(self.untrained_log_q, self.n_skills)))

    @property
    def discriminator_bound(self) -> float:
        """:return: the discriminator's own lower bound on I(S; Z) in nats; it can be negative"""
        return metrics.mutual_information(self.log_q, self.n_skills)

    @property
    def recognized_skills(self) -> float:
        """:return: the discriminator's own bound as a number of skills, its exponential"""
        return float(np.exp(self.discriminator_bound))

    @property
    def mutual_information(self) -> float:
        """:return: ``discriminator_bound`` by its old name"""
        return self.discriminator_bound

    @property
    def calibration_error(self) -> float:
        """:return: the discriminator's expected calibration error; 0 is perfect"""
        return metrics.calibration_error(self.reliability)

    @property
    def how_played(self) -> str:
        """:return: how the actions were chosen, in words; empty for unknown"""
        words = {True: "deterministically", False: "with sampled actions"}
        return words.get(self.info.get("deterministic"), "")  # type: ignore[arg-type]

    def __repr__(self) -> str:
        """What was evaluated, and its most important numbers."""
        info = self.info
        what = " on ".join(str(info[name]) for name in ("algo", "env_id") if name in info)
        words = [what, f"{self.n_skills} skills", f"{self.task_returns.shape[1]} episodes of each"]
        means = self.task_returns.mean(axis=1)
        words += [
            f"{number(self.distinct_skills)} distinct skills",
            f"accuracy {self.accuracy.mean():.0%}",
            f"best task return {number(means.max())} of skill {means.argmax()}",
        ]
        return f"{type(self).__name__}({', '.join(filter(None, words))})"

    def _repr_html_(self) -> str:
        """For notebooks: the same, and a table of the skills with the best task returns first."""
        values = self.table()
        order = (-values["task_return"]).argsort(kind="stable")
        columns = {name: heading for name, heading in HTML_COLUMNS.items() if name in values}
        heads = "".join(f"<th>{escape(heading)}</th>" for heading in columns.values())
        rows = [
            "".join(f"<td>{number(values[name][skill])}</td>" for name in columns)
            for skill in order[:MAX_HTML_ROWS]
        ]
        more = f"<p>and {len(order) - len(rows)} more skills</p>" if len(order) > len(rows) else ""
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<p>{escape(repr(self))}</p><table><tr>{heads}</tr>{body}</table>{more}"

    def to_dataframe(self) -> "pd.DataFrame":
        """
        :return: the columns of :meth:`table`, one row per skill
        :raises ImportError: if pandas is missing, which the extra ``report`` brings
        """
        with require_extra("report"):
            import pandas as pd

        frame: pd.DataFrame = pd.DataFrame(self.table()).set_index("skill")
        return frame

    def table(self) -> dict[str, Array]:
        """
        :return: one array of length K for each column; ``log_q`` and ``upside_down`` only where
            they are known
        """
        returns = self.task_returns
        columns = {
            "skill": np.arange(self.n_skills),
            "task_return": returns.mean(axis=1),
            "task_return_std": returns.std(axis=1),
            "task_return_min": returns.min(axis=1),
            "task_return_max": returns.max(axis=1),
            "length": self.lengths.mean(axis=1),
            "skill_return": self.skill_returns.mean(axis=1),
            "accuracy": self.accuracy,
            "log_q": self.log_q,
            "held_out_log_q": self.held_out_log_q,
            "distance": self.distances.mean(axis=1),
            "displacement": self.displacements.mean(axis=1),
            "coverage": self.coverage,
            "movement": self.movement,
            "upside_down": self.upside_down,
        }
        unknown = [name for name in ("log_q", "upside_down") if np.isnan(columns[name]).all()]
        return {name: values for name, values in columns.items() if name not in unknown}

    def numbers(self) -> dict[str, float]:
        """
        :return: the numbers that are logged during a training, by name; of METRA without
            ``OF_PROBABILITIES``
        """
        returns = self.task_returns.mean(axis=1)
        numbers = {
            "held_out_bound": self.held_out_bound,
            "distinct_skills": self.distinct_skills,
            "discriminator_bound": self.discriminator_bound,
            "mutual_information": self.discriminator_bound,
            "accuracy": float(self.accuracy.mean()),
            "calibration_error": self.calibration_error,
            "task_return_mean": float(returns.mean()),
            "task_return_best": float(returns.max()),
            "coverage": float(self.info["total_coverage"]),
            "sensitivity": self.sensitivity,
        }
        unknown = () if self.has_probabilities else OF_PROBABILITIES
        return {name: value for name, value in numbers.items() if name not in unknown}

    def save(self, path: str | Path) -> None:
        """
        :param path: a file ending in ``.json`` or ``.npz``
        :raises ValueError: if it has another ending
        :raises OSError: if it cannot be written
        """
        content = {"format_version": EVALUATION_FORMAT, **asdict(self)}
        file = _check_suffix(path)
        if file.suffix == ".json":
            text = json.dumps(content, default=lambda value: value.tolist(), indent=1)
            write_bytes(file, text.encode())
        else:
            content["info"] = json.dumps(self.info)
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **content)
            write_bytes(file, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "SkillEvaluation":
        """
        :param path: a file that :meth:`save` wrote
        :return: the same evaluation
        :raises FileNotFoundError: if there is no such file
        :raises ValueError: if it has another format or is not an evaluation
        """
        file = _check_suffix(path)
        try:
            content = _read(file)
            version = content["format_version"]
            names = {f.name for f in fields(cls)} - {"info"}
            names -= set(SINCE_FORMAT_2) if version == 1 else set()
            names -= set(OPTIONAL) - content.keys()
            arrays = {name: np.asarray(content[name]) for name in names}
            sensitivity = float(arrays.pop("sensitivity"))
        except FileNotFoundError:
            raise
        except Exception as error:  # a file of another kind can raise nearly anything
            raise _wrong_file(path, f"{type(error).__name__}: {error}") from error
        if version not in (1, EVALUATION_FORMAT):
            raise _wrong_file(path, f"format {version}")
        evaluation = cls(info=content["info"], sensitivity=sensitivity, **arrays)
        if wrong := _wrong_content(evaluation):
            raise _wrong_file(path, wrong)
        return evaluation


# Shapes for K skills, E episodes, P points of a path, D parts of an observation and B bins.
SHAPES = {
    "KE": ("task_returns", "lengths", "skill_returns", "distances", "displacements"),
    "KEP2": ("paths",),
    "KK": ("confusion", "mean_state_distances", "held_out_confusion"),
    "K": (
        *("log_q", "coverage", "movement", "held_out_log_q", "held_out_log_q_everything"),
        *("untrained_log_q", "upside_down"),
    ),
    "D": ("importance",),
    "B3": ("reliability",),
}
# What plots and comparisons need.
INFO: dict[str, Any] = {"coordinates": list, "cell_size": list, "total_coverage": (int, float)}


def _wrong_content(evaluation: SkillEvaluation) -> str:
    """What does not fit in an evaluation that was read from a file, in words; else nothing."""
    info = evaluation.info
    if not isinstance(info, dict):
        return "info is not a dict"
    for name, kind in INFO.items():
        value = info.get(name)
        if not isinstance(value, kind) or (isinstance(value, list) and len(value) != 2):
            return f"info has {name}={value!r}"
    sizes = {"2": 2, "3": 3}
    for dims, names in SHAPES.items():
        for name in names:
            array = getattr(evaluation, name)
            if array.ndim == len(dims):  # the first array that has a dimension sets its size
                sizes = dict(zip(dims, array.shape, strict=True)) | sizes
            expected = tuple(sizes.get(dim, dim) for dim in dims)
            if array.shape != expected or array.dtype.kind not in "bif" or 0 in array.shape[:2]:
                words = ", ".join(map(str, expected))
                return f"{name} has the shape {array.shape} of {array.dtype}, expected ({words})"
    return ""


def _check_suffix(path: str | Path) -> Path:
    file = Path(path)
    if file.suffix not in SUFFIXES:
        raise ValueError(
            f"path={str(path)!r} has an unknown ending; expected {' or '.join(SUFFIXES)}."
        )
    return file


def _read(file: Path) -> dict[str, Any]:
    if file.suffix == ".json":
        return dict(json.loads(file.read_text(encoding="utf-8")))
    with np.load(file, allow_pickle=False) as archive:
        content = dict(archive)
    content["info"] = json.loads(str(content["info"]))
    return content


def _wrong_file(path: str | Path, reason: str) -> ValueError:
    return ValueError(
        f"path={str(path)!r} is not an evaluation of format 1 or {EVALUATION_FORMAT} ({reason}); "
        "expected a file that SkillEvaluation.save wrote. Evaluate the model again."
    )
