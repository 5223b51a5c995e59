"""A run's model playing in environments that fit, to be measured or filmed."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_diayn.evaluation import evaluate_skills
from sb3_diayn.results import SkillEvaluation
from sb3_diayn.runs import Run

MAX_ENVS = 50  # more gain nothing: then nearly all of the time is the environment's own


def open_run(
    run: Run, args: argparse.Namespace, n_envs: int, render_mode: str | None = None
) -> tuple[BaseAlgorithm, VecEnv]:
    """
    :param run: a run
    :param args: options with ``seed`` and ``device``
    :param n_envs: number of environments
    :param render_mode: of the environments
    :return: its model, and environments that fit it
    :raises ValueError: if the environment does not fit the model
    """
    model = run.load_model(device=args.device)
    try:
        env = run.make_env(n_envs, seed=args.seed or 0, render_mode=render_mode)
    except AssertionError as error:  # VecNormalize, of statistics for another space
        raise ValueError(f"env={run.env_id!r} does not fit the run: {error}") from error
    for name in ("observation_space", "action_space"):
        given, expected = getattr(env, name), getattr(model, name)
        if given != expected:
            env.close()
            raise ValueError(
                f"env={run.env_id!r} has the {name} {given}, the model was trained on {expected}; "
                "expected the same. Check the environment's id and its arguments."
            )
    return model, env


def measure(run: Run, args: argparse.Namespace) -> SkillEvaluation:
    """
    :param run: a run
    :param args: options with ``seed``, ``device`` and ``episodes``
    :return: its skills on fresh episodes
    """
    model, env = open_run(run, args, min(run.n_skills * args.episodes, MAX_ENVS))
    try:
        evaluation = evaluate_skills(
            model,
            env,
            discriminator=run.load_discriminator(),
            n_episodes=args.episodes,
            seed=args.seed,
            progress_bar=not args.no_progress and sys.stderr.isatty(),
        )
    finally:
        env.close()
    evaluation.info["env_id"] = run.env_id
    return evaluation


def film(
    run: Run,
    args: argparse.Namespace,
    skills: Sequence[int],
    folder: Path,
    *,
    format: str = "mp4",
    deterministic: bool = True,
) -> Mapping[int, Path]:
    """
    :param run: a run
    :param args: options with ``seed``, ``device`` and ``film_steps``
    :param skills: which skills
    :param folder: where to
    :param format: ``"mp4"`` or ``"gif"``
    :param deterministic: play the mode of the policy instead of samples
    :return: a film of each skill
    :raises OSError: if the environment gives no picture
    """
    with report_extra():
        from sb3_diayn.rendering import RenderingError
        from sb3_diayn.video import record_skills
    # SDL, which nothing shows or plays here, would complain of a missing display and sound card.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    model, env = open_run(run, args, 1, "rgb_array")
    plural = "s" if len(skills) > 1 else ""
    print(f"Filming {len(skills)} skill{plural}, at most {args.film_steps} steps each ...")
    try:
        return record_skills(
            model,
            env,
            folder,
            skills=skills,
            max_steps=args.film_steps,
            deterministic=deterministic,
            seed=args.seed,
            format=format,
        )
    except RenderingError as error:
        raise OSError(str(error)) from error
    finally:
        env.close()


@contextmanager
def report_extra() -> Iterator[None]:
    """Say which extra brings a library that is missing within the block."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"This needs {error.name}. Install it: pip install 'sb3-diayn[report]'"
        ) from error
