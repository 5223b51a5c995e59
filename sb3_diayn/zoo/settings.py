"""Options and hyperparameters of a training, and those that a resumed run cannot change."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed

from sb3_diayn.arguments import Count, CountOrMinus1, Rule, Seed, check_options
from sb3_diayn.zoo.environments import check_observations, find_environment
from sb3_diayn.zoo.hyperparams import (
    CLASS_KEYS,
    UPDATES,
    check_classes,
    default_algo,
    read_config,
    vectorize_skills,
)
from sb3_diayn.zoo.parallel import AUTO, choose_envs
from sb3_diayn.zoo.runs import Run, check_device

# Of algorithms, what they read when they are built, not when they are loaded.
BUILT = frozenset({"policy", "policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs"})
BUILT |= {"optimize_memory_usage", "use_sde"}

VEC_ENVS = ("dummy", "subproc", "envpool")
KindOfVecEnv = Annotated[str, Rule(lambda v: v in VEC_ENVS, "'dummy', 'subproc' or 'envpool'")]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """
    What to train and how. The zoo saves all of them in the run's ``args.yml``.

    :param env: id of the environment, or ``package:id``
    :param gym_packages: packages that register environments; imported, in other processes too
    :param algo: name of the algorithm as the zoo spells it; None for the one that ``conf_file``
        names, or the one that suits the environment, see
        :func:`~sb3_diayn.zoo.hyperparams.default_algo`
    :param conf_file: file of hyperparameters in the zoo's format, or the name of a provided one;
        None for the provided one of the algorithm
    :param n_skills: number of skills; None for the file's
    :param hyperparams: what shall differ from the file, for example ``{"batch_size": 64}`` or
        ``{"DIAYNCallback.learning_rate": 1e-3}``. ``{"n_envs": "auto"}`` chooses the number, see
        :func:`~sb3_diayn.zoo.parallel.choose_envs`
    :param env_kwargs: arguments of the environment
    :param n_timesteps: environment steps; -1 for the file's
    :param seed: seed of everything; None for a random one
    :param log_folder: where runs are saved
    :param device: PyTorch device
    :param num_threads: PyTorch threads while it learns; -1 for one, or for PyTorch's own choice
        with images or ``OMP_NUM_THREADS``, see :func:`~sb3_diayn.processor.efficient_torch`
    :param vec_env: ``"dummy"``, ``"subproc"`` or ``"envpool"``, whose simulators step all
        environments at once; None for the run's that is resumed, or ``"dummy"``
    :param save_freq: environment steps between checkpoints; None for a tenth of the training, at
        least 10,000, where skills are learned, and -1 for none
    :param keep_checkpoints: how many checkpoints to keep, the newest
    :param save_replay_buffer: save it at the end and in checkpoints
    :param log_interval: episodes between two prints of SB3's table, on-policy rollouts; -1 for
        SB3's choice, which is printed with ``verbose=1`` only
    :param eval_freq: steps between two evaluations of the zoo; -1 for none
    :param tensorboard_log: folder for TensorBoard; empty for none
    :param progress_bar: show one
    :param live: write a page that shows the training while it runs, ``live.html`` in the run's
        folder, see :class:`~sb3_diayn.evaluation.dashboard.SkillDashboardCallback`
    :param verbose: 1 for messages of the zoo and of SB3
    """

    env: str | None = None
    gym_packages: Sequence[str] = ()
    algo: str | None = None
    conf_file: str | Path | None = None
    n_skills: int | None = None
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    env_kwargs: Mapping[str, Any] | None = None
    n_timesteps: CountOrMinus1 = -1
    seed: Seed | None = None
    log_folder: str | Path = "logs"
    device: str = "auto"
    num_threads: CountOrMinus1 = -1
    vec_env: KindOfVecEnv | None = None
    save_freq: CountOrMinus1 | None = None
    keep_checkpoints: Count = 2
    save_replay_buffer: bool = False
    log_interval: CountOrMinus1 = -1
    eval_freq: CountOrMinus1 = -1
    tensorboard_log: str = ""
    progress_bar: bool = False
    live: bool = False
    verbose: int = 0

    def __post_init__(self) -> None:
        check_options(TrainingOptions, vars(self))
        check_device(self.device)


def complete(
    options: TrainingOptions, resumed: Run | None = None
) -> tuple[TrainingOptions, dict[str, Any]]:
    """
    :param options: what to train
    :param resumed: the run to continue, whose hyperparameters then count
    :return: the options with what they leave to the resumed run or to the file; and the
        hyperparameters
    :raises ValueError: if one of them is wrong
    """
    if resumed is not None:
        _check_resumed(options, resumed)
        options = replace(
            options,
            algo=resumed.zoo_algo,
            env=options.env or resumed.env_id,
            env_kwargs=options.env_kwargs or resumed.env_kwargs or None,
            vec_env=options.vec_env or resumed.saved_options.get("vec_env"),
            gym_packages=[*resumed.gym_packages, *options.gym_packages],
            save_replay_buffer=options.save_replay_buffer
            or bool(resumed.saved_options.get("save_replay_buffer")),
        )
    if options.env is None:
        raise ValueError(
            "env=None names no environment; expected a gymnasium id. Add --env, or --resume RUN."
        )
    env_id, packages = find_environment(options.env, options.gym_packages)
    algo = options.algo or default_algo(options.conf_file, env_id)
    is_auto = options.hyperparams.get("n_envs") == AUTO
    if is_auto and resumed is not None:
        raise ValueError(
            f"n_envs={AUTO!r} cannot change a run that is resumed; expected its own number, "
            f"{resumed.hyperparams.get('n_envs', 1)}. Leave --n-envs out."
        )
    hyperparams = read_config(
        algo,
        env_id,
        conf_file=options.conf_file,
        n_skills=options.n_skills,
        hyperparams={k: v for k, v in options.hyperparams.items() if (k, v) != ("n_envs", AUTO)},
        resumed=None if resumed is None else resumed.hyperparams,
    )
    check_classes(hyperparams, *CLASS_KEYS)
    env_kwargs = options.env_kwargs or hyperparams.get("env_kwargs")
    check_observations(algo, hyperparams, env_id, env_kwargs)
    options = replace(options, algo=algo, env=env_id, env_kwargs=env_kwargs, gym_packages=packages)
    if is_auto:
        options, hyperparams = _with_chosen_envs(options, hyperparams)
    options = replace(options, vec_env=options.vec_env or "dummy")
    if options.vec_env == "envpool":
        hyperparams = vectorize_skills(hyperparams)
    return options, hyperparams


def _check_resumed(options: TrainingOptions, resumed: Run) -> None:
    fixed = {"algo": resumed.zoo_algo, "conf_file": None, "n_skills": resumed.n_skills}
    for name, own in fixed.items():
        given = getattr(options, name)
        if given not in (None, own):
            option, has = name.replace("_", "-"), "its own hyperparameters" if own is None else own
            raise ValueError(
                f"{name}={given!r} does not match the run that is resumed; expected {has}. Leave "
                f"--{option} out, or start a new run without --resume."
            )
    _check_built(options, resumed)


def _check_built(options: TrainingOptions, resumed: Run) -> None:
    """Refuse to change what an algorithm reads only when it is built, not when it is loaded."""
    model_class = resumed.model_class
    is_off_policy = issubclass(model_class, OffPolicyAlgorithm)
    defaults = inspect.signature(model_class.__init__).parameters
    for name, given in options.hyperparams.items():
        default = defaults[name].default if name in defaults else None
        own = resumed.hyperparams.get(name, default)
        is_built = name in BUILT or (name == "n_steps" and is_off_policy)
        if name == "ent_coef" and is_off_policy:  # auto has an optimiser, a number has none
            is_built = isinstance(given, str) != isinstance(own, str)
        if is_built and given != own:
            raise ValueError(
                f"{name}={given!r} cannot change a run that is resumed; expected its own, {own!r}: "
                "the model was built with it. Leave it out, or start a new run without --resume."
            )


def _with_chosen_envs(
    options: TrainingOptions, hyperparams: dict[str, Any]
) -> tuple[TrainingOptions, dict[str, Any]]:
    """The same with numbers in the place of ``auto``, as the run's files shall have them."""
    assert options.algo is not None and options.env is not None
    changes, vec_env = choose_envs(
        options.algo, hyperparams, options.env, options.env_kwargs, options.vec_env
    )
    given = {name: value for name, value in options.hyperparams.items() if name != "n_envs"}
    if not UPDATES.isdisjoint(given):
        changes = {name: value for name, value in changes.items() if name not in UPDATES}
    chosen = changes | given
    options = replace(options, hyperparams=chosen, vec_env=vec_env)
    return options, hyperparams | {name: chosen[name] for name in changes}


def seeded(options: TrainingOptions) -> TrainingOptions:
    """
    Seed everything.

    :param options: what to train
    :return: the same with a seed, a random one where there was none
    """
    if options.seed is None:
        options = replace(options, seed=int(np.random.default_rng().integers(2**31)))
    assert options.seed is not None
    set_random_seed(options.seed)
    return options
