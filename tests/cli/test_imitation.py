"""``sb3-diayn imitate``: the skill is named, and filmed next to the expert where possible."""

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

pytest.importorskip("rl_zoo3")
pytest.importorskip("imageio_ffmpeg")

import gymnasium as gym

from sb3_diayn import DIAYNWrapper, load_discriminator
from sb3_diayn.cli import main
from sb3_diayn.cli.downstream import Replay, why_no_replay
from sb3_diayn.downstream.imitation import Demonstration, infer_skill
from sb3_diayn.evaluation.trajectories import play_skills
from tests.helpers.models import make_callback, make_sac

K = 3
ENV = "sb3_diayn/PointBox-v0"


def make_env(**kwargs):
    return DummyVecEnv([lambda: DIAYNWrapper(gym.make(ENV, **kwargs), K)])


@pytest.fixture(scope="module")
def model():
    model = make_sac(make_env())
    model.learn(120, callback=make_callback())
    return model


@pytest.fixture(scope="module")
def expert(model):
    """Skill 1, as an expert would have saved it."""
    (episode,) = play_skills(model, make_env(), [1], seed=5)
    return Demonstration(episode.states[:30], episode.actions[:30], 5)


@pytest.fixture
def saved(model, expert, tmp_path):
    model.save(tmp_path / "model")
    arrays = {"observations": expert.observations, "actions": expert.actions, "seed": expert.seed}
    np.savez(tmp_path / "expert.npz", **arrays)
    np.savez(tmp_path / "states.npz", observations=expert.observations)
    return tmp_path


def imitate(folder, trajectory, *args):
    words = ["imitate", folder / "model.zip", "--trajectory", trajectory, *args]
    return main([*map(str, words), "--film-steps", "8", "--device", "cpu"])


@pytest.mark.slow
def test_replay_plays_the_experts_actions(model, expert):
    replay = Replay(make_env(), expert.actions)
    (episode,) = play_skills(model, replay, [2], seed=5, max_steps=len(expert.actions))
    np.testing.assert_array_equal(episode.states, expert.observations)


@pytest.mark.slow
def test_what_cannot_be_replayed_is_told_why(model, expert):
    assert why_no_replay(model, make_env(), expert) is None
    states = Demonstration(expert.observations)
    assert "no array 'actions'" in why_no_replay(model, make_env(), states)
    other = Demonstration(expert.observations + 0.1, expert.actions, 5)
    assert "its actions lead to other states here" in why_no_replay(model, make_env(), other)
    wide = Demonstration(expert.observations, np.zeros((30, 7)), 5)
    assert "shape (7,) each, not the environment's" in why_no_replay(model, make_env(), wide)
    shorter = Demonstration(expert.observations[:-1], expert.actions, 5)
    assert "other states" in why_no_replay(model, make_env(), shorter)


@pytest.mark.slow
def test_the_skill_is_named_and_filmed_beside_the_expert(saved, model, expert, capsys):
    assert imitate(saved, saved / "expert.npz", "-o", saved / "films") == 0
    skill = infer_skill(load_discriminator(saved / "model"), expert).skill
    printed = capsys.readouterr().out
    assert f"The trajectory looks like skill {skill}." in printed
    assert "of 30." in printed and "left out" not in printed
    names = {file.relative_to(saved / "films").as_posix() for file in saved.rglob("*.mp4")}
    film = f"skill_{skill:02d}.mp4"
    assert names == {f"expert/{film}", "expert_and_skill.mp4", film}


def test_without_actions_the_skill_alone_is_filmed(saved, capsys):
    assert imitate(saved, saved / "states.npz") == 0
    printed = capsys.readouterr().out
    assert "The expert's film is left out: there is no array 'actions'" in printed
    assert len(list(saved.rglob("*.mp4"))) == 1


def test_films_may_be_left_out(saved, capsys):
    assert imitate(saved, saved / "states.npz", "--no-films") == 0
    assert "looks like skill" in capsys.readouterr().out
    assert list(saved.rglob("*.mp4")) == []


def test_a_mistake_is_told_without_traceback(saved, capsys):
    np.save(saved / "wide.npy", np.zeros((4, 9)))
    for file, match in (("none.npz", "is not a file"), ("wide.npy", "do not fit the discrimin")):
        assert imitate(saved, saved / file) == 2
        assert match in capsys.readouterr().err
