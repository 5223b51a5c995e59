"""Skills that are really learned: the figures of the README. Minutes each; ``-m expensive``."""

import pytest

pytest.importorskip("rl_zoo3")

from sb3_diayn.cli import main
from sb3_diayn.evaluation.trajectories import play_skills
from sb3_diayn.zoo.finding import find_run

pytestmark = [pytest.mark.expensive, pytest.mark.filterwarnings("default")]


def train(folder, *args):
    assert main(["train", *args, "--no-progress", "--no-report", "-f", str(folder)]) == 0
    (run,) = folder.glob("*/*_1")
    return find_run(run)


def test_a_mountain_car_skill_solves_the_task_without_its_reward(tmp_path):
    run = train(tmp_path, "--env", "MountainCarContinuous-v0", "--seed", "1")
    episodes = play_skills(run.load_model(), run.make_env(10), range(run.n_skills), seed=0)
    returns = [episode.task_rewards.sum() for episode in episodes]
    assert max(returns) >= 90


def test_the_discriminator_knows_fresh_episodes_of_hopper(tmp_path):
    """The provided configuration, shorter; its replay buffer is also that much smaller."""
    shorter = ["-n", "92000", "--hyperparams", "buffer_size:30000"]
    run = train(tmp_path, "--env", "Hopper-v5", "--seed", "0", *shorter)
    evaluation = run.evaluate(n_episodes=3)
    assert evaluation.n_skills == 20
    assert evaluation.distinct_skills >= 14 and evaluation.recognized_skills >= 14
