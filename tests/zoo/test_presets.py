"""The published values: the documentation's table shows them, and they train."""

import re
from pathlib import Path

import gymnasium as gym
import pytest
from stable_baselines3 import DDPG, SAC

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from sb3_diayn.zoo import preset
from sb3_diayn.zoo.hyperparams import PRESETS, config_path, default_algo, read_config
from tests.helpers.envs import CountingEnv

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "variants.md"


def read_table() -> dict[str, dict[str, str]]:
    """The table of presets on the page, by preset and row."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| | `paper`"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    end = next(i for i, row in enumerate(rows) if len(row) < 3)
    names = [cell.strip("`") for cell in rows[0][1:]]
    return {name: {row[0]: row[i + 1] for row in rows[2:end]} for i, name in enumerate(names)}


def written(name: str) -> dict[str, str]:
    """The same from the provided file."""
    values = preset(name)
    model, wrapper, callback = values["model"], values["wrapper"], values["callback"]
    duration = wrapper.get("skill_duration")
    assert callback["learning_rate"] == model["learning_rate"]
    assert callback["net_arch"] == model["policy_kwargs"]["net_arch"]
    assert callback["batch_size"] == model["batch_size"]
    return {
        "algorithm": default_algo(name, "Hopper-v5").upper(),
        "hidden layers": " x ".join(map(str, callback["net_arch"])),
        "batch": str(model["batch_size"]),
        "learning rate": f"{model['learning_rate']:g}".replace("e-0", "e-"),
        "entropy coefficient": str(model.get("ent_coef", "none")),
        "`tau`": str(model.get("tau", "SB3's")),
        "skills": str(wrapper["n_skills"]),
        "skill redrawn": f"every {duration} steps" if duration else "each episode",
    }


def test_the_page_shows_the_values_of_the_files():
    table = read_table()
    assert table.keys() == set(PRESETS)
    for name in PRESETS:
        assert table[name] == written(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains(name):
    """300 steps, with its batch size and nets."""
    values = preset(name)
    env = DIAYNWrapper(CountingEnv(), **values["wrapper"])
    model_class = {"sac": SAC, "ddpg": DDPG}[default_algo(name, "Hopper-v5")]
    values["model"] |= {"buffer_size": 1000, "learning_starts": 297}
    model = model_class("MlpPolicy", env, **values["model"], device="cpu", seed=0)
    callback = DIAYNCallback(**values["callback"])
    model.learn(300, callback=callback)
    assert callback.trainer.n_updates == model._n_updates > 0
    assert callback.discriminator.n_skills == values["wrapper"]["n_skills"]


@pytest.mark.parametrize(
    ("name", "env_id", "n_skills"),
    [
        ("seed", None, 50),
        ("seed", "Hopper-v5", 20),
        ("seed", "Reacher-v5", 2),
        ("seed", "Ant-v5", 5),
        ("seed", "HalfCheetah-v4", 5),
        ("paper", "Hopper-v5", 50),
        ("urlb", "Hopper-v5", 16),
    ],
)
def test_skills_of_an_environment(name, env_id, n_skills):
    assert preset(name, env_id)["wrapper"]["n_skills"] == n_skills


def test_the_original_code_subtracts_no_log_p_in_mountain_car():
    assert "subtract_log_p" not in preset("original-code", "Hopper-v5")["callback"]
    values = preset("original-code", "MountainCarContinuous-v0")
    assert values["callback"]["subtract_log_p"] is False


def test_every_version_of_an_environment_has_its_own_values():
    """Gymnasium's and the zoo's ids, so that a new version of an environment is not forgotten."""
    pytest.importorskip("rl_zoo3.import_envs")
    versions = {"Hopper": 20, "Reacher": 2, "Ant": 5, "HalfCheetah": 5}
    ids = [id for id in gym.registry if id.rpartition("-v")[0] in versions]
    assert {"Hopper-v2", "Reacher-v5", "Ant-v4", "HalfCheetah-v3"} <= set(ids)
    for id in ids:
        assert preset("seed", id)["wrapper"]["n_skills"] == versions[id.rpartition("-v")[0]]
    ids = [id for id in gym.registry if id.startswith("MountainCar")]
    assert {"MountainCar-v0", "MountainCarContinuous-v0"} <= set(ids)
    for id in ids:
        assert preset("original-code", id)["callback"]["subtract_log_p"] is False
        assert preset("original-code", id)["callback"]["net_arch"] == [300, 300]


def test_a_preset_is_a_file_of_the_zoo():
    pytest.importorskip("rl_zoo3")
    entry = read_config("ddpg", "Hopper-v5", conf_file="urlb")
    assert (entry["noise_type"], entry["noise_std"]) == ("normal", 0.2)
    assert read_config("ddpg", "Hopper-v5", conf_file=config_path("urlb")) == entry
    with pytest.raises(ValueError, match=r"^ent_coef=0\.1 is not a hyperparameter of ddpg"):
        read_config("ddpg", "Hopper-v5", conf_file="paper")


def test_a_preset_is_a_copy():
    preset("paper")["model"]["policy_kwargs"]["net_arch"].append(7)
    preset("paper")["callback"]["net_arch"].append(7)
    assert preset("paper")["model"]["policy_kwargs"]["net_arch"] == [300, 300]
    assert preset("seed")["callback"]["net_arch"] == [300, 300]


def test_an_unknown_preset():
    match = r"preset='papers' is not known; expected one of .*'paper'.*Leave it out"
    with pytest.raises(ValueError, match=match):
        preset("papers")
    assert not re.search("noise|algo", str(preset("urlb").keys()))
