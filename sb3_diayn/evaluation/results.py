"""The result of an evaluation, and its files."""

import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sb3_diayn.evaluation import metrics
from sb3_diayn.files import require_extra, write_bytes

if TYPE_CHECKING:
    import pandas as pd


Array = npt.NDArray[Any]

EVALUATION_FORMAT = 1
SUFFIXES = (".json", ".npz")


@dataclass
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
        >>> evaluation.mutual_information < 1.1  # at most log 3 nats
        True
        >>> evaluation.save("evaluation.json")
        >>> SkillEvaluation.load("evaluation.json").distinct_skills == evaluation.distinct_skills
        True

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

    @property
    def n_skills(self) -> int:
        """:return: the number of skills, K"""
        return len(self.log_q)

    @property
    def accuracy(self) -> Array:
        """:return: share of each skill's states that the discriminator recognises, ``(K,)``"""
        return self.confusion.diagonal()

    @property
    def mutual_information(self) -> float:
        """:return: lower bound on I(S; Z) in nats, see :func:`sb3_diayn.evaluation.metrics`"""
        return metrics.mutual_information(self.log_q, self.n_skills)

    @property
    def distinct_skills(self) -> float:
        """:return: the mutual information as a number of skills, its exponential"""
        return float(np.exp(self.mutual_information))

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
        """:return: one array of length K for each column"""
        returns = self.task_returns
        return {
            "skill": np.arange(self.n_skills),
            "task_return": returns.mean(axis=1),
            "task_return_std": returns.std(axis=1),
            "task_return_min": returns.min(axis=1),
            "task_return_max": returns.max(axis=1),
            "length": self.lengths.mean(axis=1),
            "skill_return": self.skill_returns.mean(axis=1),
            "accuracy": self.accuracy,
            "log_q": self.log_q,
            "distance": self.distances.mean(axis=1),
            "displacement": self.displacements.mean(axis=1),
            "coverage": self.coverage,
            "movement": self.movement,
        }

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
            arrays = {f.name: np.asarray(content[f.name]) for f in fields(cls) if f.name != "info"}
            sensitivity, version = float(arrays.pop("sensitivity")), content["format_version"]
        except FileNotFoundError:
            raise
        except Exception as error:  # a file of another kind can raise nearly anything
            raise _wrong_file(path, f"{type(error).__name__}: {error}") from error
        if version != EVALUATION_FORMAT:
            raise _wrong_file(path, f"format {version}")
        evaluation = cls(info=content["info"], sensitivity=sensitivity, **arrays)
        if wrong := _wrong_shapes(evaluation):
            raise _wrong_file(path, wrong)
        return evaluation


# Shapes for K skills and E episodes; the rest of a shape is free.
SHAPES = {
    "KE": ("task_returns", "lengths", "skill_returns", "distances", "displacements", "paths"),
    "KK": ("confusion", "mean_state_distances"),
    "K": ("log_q", "coverage", "movement"),
}


def _wrong_shapes(evaluation: SkillEvaluation) -> str:
    """What does not fit in an evaluation that was read from a file, in words; else nothing."""
    if not isinstance(evaluation.info, dict):
        return "info is not a dict"
    if evaluation.log_q.ndim != 1 or evaluation.task_returns.ndim != 2:
        return "log_q or task_returns has another number of dimensions"
    sizes = {"K": evaluation.log_q.size, "E": evaluation.task_returns.shape[1]}
    for dims, names in SHAPES.items():
        expected = tuple(sizes[dim] for dim in dims)
        for name in names:
            array = getattr(evaluation, name)
            if array.shape[: len(dims)] != expected or array.dtype.kind not in "bif":
                return f"{name} has the shape {array.shape} of {array.dtype}, expected {expected}"
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
        f"path={str(path)!r} is not an evaluation of format {EVALUATION_FORMAT} ({reason}); "
        "expected a file that SkillEvaluation.save wrote. Evaluate the model again."
    )
