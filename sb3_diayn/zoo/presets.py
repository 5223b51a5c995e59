"""The values of published DIAYN codes, in one word."""

import copy
from typing import Any

# What a code sets for some environments only: the beginning of their ids, and what changes.
Exceptions = dict[str, dict[str, dict[str, Any]]]


def _sac(**changes: Any) -> dict[str, Any]:
    """What all codes on SAC have in common, and what one of them has else."""
    return {
        "policy_kwargs": {"net_arch": [300, 300]},
        "learning_rate": 3e-4,
        "ent_coef": 0.1,
        "gamma": 0.99,
        "buffer_size": 1_000_000,
        **changes,
    }


def _discriminator(batch_size: int) -> dict[str, Any]:
    """All learn from the policy's whole batches."""
    return {"net_arch": [300, 300], "learning_rate": 3e-4, "batch_size": batch_size}


PRESETS: dict[str, dict[str, Any]] = {
    # Eysenbach et al. (2019), arXiv 1802.06070
    "paper": {
        "algo": "sac",
        "model": _sac(batch_size=128),
        "wrapper": {"n_skills": 50},
        "callback": _discriminator(128),
    },
    # examples/mujoco_all_diayn.py of github.com/haarnoja/sac
    "original-code": {
        "algo": "sac",
        "model": _sac(batch_size=128, tau=0.01, learning_starts=1000),
        "wrapper": {"n_skills": 50, "skill_duration": 1000},
        "callback": _discriminator(128),
    },
    # github.com/alirezakazemipour/DIAYN-PyTorch and the update of it for newer gym versions
    "seed": {
        "algo": "sac",
        "model": _sac(batch_size=256, tau=0.005),
        "wrapper": {"n_skills": 50},
        "callback": _discriminator(256),
    },
    # agent/diayn.yaml of github.com/rll-research/url_benchmark
    "urlb": {
        "algo": "ddpg",
        "model": {
            "policy_kwargs": {"net_arch": [1024, 1024]},
            "learning_rate": 1e-4,
            "gamma": 0.99,
            "buffer_size": 1_000_000,
            "batch_size": 1024,
            "tau": 0.01,
            "learning_starts": 4000,
            "train_freq": 2,
        },
        "noise": {"noise_type": "normal", "noise_std": 0.2},
        "wrapper": {"n_skills": 16, "skill_duration": 50},
        "callback": {"net_arch": [1024, 1024], "learning_rate": 1e-4, "batch_size": 1024},
    },
}


EXCEPTIONS: dict[str, Exceptions] = {
    "original-code": {"MountainCar": {"callback": {"subtract_log_p": False}}},
    "seed": {
        "Hopper": {"wrapper": {"n_skills": 20}},
        "Reacher": {"wrapper": {"n_skills": 2}},
        "Ant": {"wrapper": {"n_skills": 5}},
        "HalfCheetah": {"wrapper": {"n_skills": 5}},
    },
}


def preset(name: str, env_id: str | None = None) -> dict[str, dict[str, Any]]:
    """
    The hyperparameters that a published code uses::

        values = preset("paper")
        env = DIAYNWrapper(gym.make("Hopper-v5"), **values["wrapper"])
        model = SAC("MlpPolicy", env, **values["model"])
        model.learn(300_000, callback=DIAYNCallback(**values["callback"]))

    :param name: ``"paper"``, ``"original-code"``, ``"seed"`` or ``"urlb"``, which is for DDPG
    :param env_id: id of the environment: some codes have own values for some of them
    :return: arguments of the model, of ``DIAYNWrapper`` and of ``DIAYNCallback``
    :raises ValueError: if there is no such preset
    """
    values = describe_preset(name, env_id)
    return {part: values[part] for part in ("model", "wrapper", "callback")}


def describe_preset(name: str, env_id: str | None = None) -> dict[str, Any]:
    """
    :param name: see :func:`preset`
    :param env_id: see :func:`preset`
    :return: the same, with ``algo``, the algorithm as the zoo spells it, and ``noise``, the action
        noise as the zoo spells it
    :raises ValueError: if there is no such preset
    """
    if name not in PRESETS:
        raise ValueError(
            f"preset={name!r} is not known; expected one of {sorted(PRESETS)}. Leave it out for "
            "the values of this package."
        )
    values = {"noise": {}, **copy.deepcopy(PRESETS[name])}
    for beginning, changes in EXCEPTIONS.get(name, {}).items():
        if (env_id or "").startswith(beginning):
            for part, arguments in changes.items():
                values[part] |= arguments
    return values
