"""A training that stops at a checkpoint and resumes is the training that never stopped."""

import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.wrappers import TimeLimit
from sb3_contrib import QRDQN, TQC, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from sb3_diayn import DIAYNCallback, DIAYNCheckpointCallback, DIAYNWrapper, resume
from sb3_diayn.checkpoints import last_good_checkpoint, list_checkpoints, newest_checkpoint
from sb3_diayn.model_zip import load_state, training_history
from sb3_diayn.wrappers import MAX_RECORD_BYTES, EpisodeRecord
from tests.helpers.envs import CountingEnv, PointEnv, StepEnv
from tests.helpers.models import K, counting, counting_vec, make_callback, make_sac, small_net

STEPS, SEAM = 160, 70
OFF_POLICY = {"learning_starts": 40, "batch_size": 16, "buffer_size": 500}
ON_POLICY = {"n_steps": 24, "batch_size": 8, "n_epochs": 2}


class RaggedEnv(PointEnv):
    """Episodes of random lengths, so that several environments never end together."""

    def reset(self, **kwargs: Any) -> Any:
        result = super().reset(**kwargs)
        self.length = int(self.np_random.integers(5, 40))
        return result


def envs(env_id: str, n_envs: int, cls: Any = DummyVecEnv, **kwargs: Any) -> Any:
    def make() -> gym.Env:
        env = RaggedEnv() if env_id == "ragged" else gym.make(env_id)
        return DIAYNWrapper(env, K, **kwargs)

    return cls([make] * n_envs)


def limited() -> Any:
    """A time limit of its own outside, shorter than the episodes."""
    return DummyVecEnv([lambda: TimeLimit(DIAYNWrapper(gym.make("Pendulum-v1"), K), 50)] * 2)


def build(cls: Any, env: Any, **kwargs: Any) -> Any:
    policy = "MlpLstmPolicy" if cls is RecurrentPPO else "MlpPolicy"
    if cls is RecurrentPPO:
        kwargs["policy_kwargs"] = {"net_arch": [8], "lstm_hidden_size": 8}
    options = {"seed": 0, "device": "cpu", "policy_kwargs": small_net()}
    return cls(policy, env, **(options | kwargs))


def learned(model: Any, callback: DIAYNCallback) -> dict[str, th.Tensor]:
    """Every parameter and every moment of an optimiser, of the model and of the discriminator."""
    states = dict(model.get_parameters())
    states["discriminator"] = callback.discriminator.state_dict()
    states["its optimiser"] = callback.trainer.optimizer.state_dict()
    if getattr(model, "log_ent_coef", None) is not None:
        states["entropy"] = {"log_ent_coef": model.log_ent_coef.detach()}
    found = {}
    for name, state in states.items():
        found |= {f"{name}.{k}": v for k, v in state.items() if isinstance(v, th.Tensor)}
        for index, moments in state.get("state", {}).items():
            found |= {f"{name}.{index}.{k}": v for k, v in moments.items()}
    return found


def differences(one: dict[str, th.Tensor], other: dict[str, th.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not th.equal(one[name], other[name])]


def go_on(path: Any, env: Any, *further: BaseCallback, **kwargs: Any) -> tuple[Any, DIAYNCallback]:
    model, callback = resume(path, env, device="cpu"), DIAYNCallback(**kwargs)
    steps = STEPS - model.num_timesteps
    model.learn(steps, callback=[callback, *further], reset_num_timesteps=False)
    return model, callback


def noise() -> OrnsteinUhlenbeckActionNoise:
    return OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2))


CASES: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "SAC on MuJoCo": (SAC, lambda: envs("InvertedPendulum-v5", 1), OFF_POLICY, {}),
    "SAC on Hopper": (SAC, lambda: envs("Hopper-v5", 3, skill="balanced"), OFF_POLICY, {}),
    "SAC, time limit outside": (SAC, limited, OFF_POLICY, {}),
    "SAC, ragged": (SAC, lambda: envs("ragged", 3, skill="balanced"), OFF_POLICY, {}),
    "SAC, more updates": (
        SAC,
        lambda: envs("ragged", 2, skill_duration=4),
        OFF_POLICY | {"train_freq": 3, "gradient_steps": -1},
        {"n_updates": 2, "normalize_obs": True},
    ),
    "SAC, learned p(z)": (
        SAC,
        lambda: envs("ragged", 2),
        OFF_POLICY,
        {"learn_p_z": True, "p_z_update_freq": 30},
    ),
    "SAC, cross-fitted": (
        SAC,
        lambda: envs("ragged", 2, skill_duration=9),
        OFF_POLICY,
        {"cross_fit": True},
    ),
    "SAC, stopped before its policy is frozen": (
        SAC,
        lambda: envs("ragged", 2, skill_duration=9),
        OFF_POLICY,
        {"cross_fit": True, "frozen_fraction": 0.3},
    ),
    "SAC, stopped while its policy is frozen": (
        SAC,
        lambda: envs("ragged", 2),
        OFF_POLICY,
        {"frozen_fraction": 0.7},
    ),
    "SAC, METRA": (
        SAC,
        lambda: envs("ragged", 2, skill_duration=9),
        OFF_POLICY,
        {"objective": "metra", "normalize_obs": True},
    ),
    "PPO, METRA": (
        PPO,
        lambda: VecNormalize(envs("ragged", 2), norm_reward=False),
        ON_POLICY,
        {"objective": "metra", "n_rollouts": 3},
    ),
    "PPO, three rollouts": (PPO, lambda: envs("ragged", 2), ON_POLICY, {"n_rollouts": 3}),
    "SAC, gSDE": (
        SAC,
        lambda: envs("ragged", 2),
        OFF_POLICY | {"use_sde": True, "sde_sample_freq": 4, "train_freq": 8},
        {},
    ),
    "TD3, noise": (
        TD3,
        lambda: envs("ragged", 2),
        OFF_POLICY | {"action_noise": noise()},
        {},
    ),
    "TQC, VecNormalize": (
        TQC,
        lambda: VecNormalize(envs("ragged", 2), norm_reward=False),
        OFF_POLICY,
        {},
    ),
    "DQN": (DQN, lambda: envs("CartPole-v1", 2), OFF_POLICY, {}),
    "PPO": (PPO, lambda: envs("ragged", 2), ON_POLICY, {}),
    "PPO, gSDE": (PPO, lambda: envs("ragged", 2), ON_POLICY | {"use_sde": True}, {}),
    "PPO, VecNormalize": (
        PPO,
        lambda: VecNormalize(VecMonitor(envs("Hopper-v5", 2)), norm_reward=False),
        ON_POLICY,
        {},
    ),
    "RecurrentPPO": (RecurrentPPO, lambda: envs("ragged", 2), ON_POLICY, {}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "DQN")) for name in CASES]
)
def test_a_checkpoint_neither_disturbs_nor_is_seen_in_the_result(name, tmp_path):
    cls, make_env, kwargs, options = CASES[name]
    results = []
    for further in ([], [DIAYNCheckpointCallback(tmp_path, save_freq=SEAM, keep=None)]):
        model, callback = build(cls, make_env(), **kwargs), make_callback(**options)
        model.learn(STEPS, callback=[callback, *further])
        results.append(learned(model, callback))
    checkpoints = list_checkpoints(tmp_path)
    assert SEAM <= min(checkpoints) < STEPS
    again, callback = go_on(checkpoints[min(checkpoints)], make_env())
    assert callback.trainer.n_updates > 0
    assert differences(results[0], results[1]) == []
    assert differences(results[0], learned(again, callback)) == []
    assert (again.num_timesteps, again._episode_num) == (model.num_timesteps, model._episode_num)


IN_A_NEW_PROCESS = """
import sys, torch as th
th.set_num_threads(1)
from tests.test_checkpoints import envs, go_on, learned
if __name__ == "__main__":
    from stable_baselines3.common.vec_env import SubprocVecEnv
    env = envs("InvertedPendulum-v5", 2, SubprocVecEnv)
    th.save(learned(*go_on(sys.argv[1], env)), sys.argv[2])
    env.close()
"""


@pytest.mark.slow
def test_a_new_process_with_environments_in_processes_of_their_own(tmp_path):
    env = envs("InvertedPendulum-v5", 2)
    model, callback = build(SAC, env, **OFF_POLICY), make_callback()
    saving = DIAYNCheckpointCallback(tmp_path / "checkpoints", save_freq=SEAM, keep=None)
    model.learn(STEPS, callback=[callback, saving])
    script, result = tmp_path / "script.py", tmp_path / "result.pt"
    script.write_text(IN_A_NEW_PROCESS)
    first = next(iter(list_checkpoints(tmp_path / "checkpoints").values()))
    subprocess.run([sys.executable, script, first, result], check=True, timeout=300)
    assert differences(learned(model, callback), th.load(result)) == []


@pytest.mark.slow
def test_the_order_of_the_callbacks_does_not_matter(tmp_path):
    model, callback = build(SAC, envs("ragged", 2), **OFF_POLICY), make_callback()
    saving = DIAYNCheckpointCallback(tmp_path, save_freq=SEAM, keep=None)
    model.learn(STEPS, callback=[saving, callback])
    first = next(iter(list_checkpoints(tmp_path).values()))
    assert differences(learned(model, callback), learned(*go_on(first, envs("ragged", 2)))) == []


class Settings(BaseCallback):
    """Writes down what the model was set to at each step, and whether it has learned."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, int]] = []

    def _on_step(self) -> bool:
        self.rows.append((self.model.learning_starts, self.model._n_updates))
        return True


# -- without the replay buffer -----------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A stock zip after 60 steps and 40 updates, and no buffer."""
    model = make_sac(counting())
    model.learn(60, callback=make_callback())
    model.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
def test_a_new_counter_brings_no_second_warm_up_and_the_options_come_back(saved):
    model = SAC.load(saved, env=counting(), device="cpu", learning_starts=30)
    settings = Settings()
    model.learn(20, callback=[DIAYNCallback(hold=0), settings])  # as the zoo's -i does
    assert {starts for starts, _ in settings.rows} == {0}
    assert model.learning_starts == 30
    assert model._n_updates == 40 + 20


@pytest.mark.slow
@pytest.mark.parametrize("cls", [DQN, QRDQN])
def test_epsilon_falls_from_where_it_was(tmp_path, cls):
    env = envs("CartPole-v1", 1)
    model = build(cls, env, **OFF_POLICY, exploration_fraction=1.0, exploration_final_eps=0.1)
    callback = make_callback()
    model.learn(50, callback=callback)
    model.learn(50, callback=callback, reset_num_timesteps=False)  # SB3: falls again, from a half
    assert model.exploration_rate == pytest.approx(0.1)
    model.save(tmp_path / "model")
    loaded, rates = cls.load(tmp_path / "model", env=env, device="cpu"), []

    class Rates(BaseCallback):
        def _on_step(self) -> bool:
            rates.append(self.model.exploration_rate)
            return True

    loaded.learn(20, callback=[DIAYNCallback(hold=0), Rates()])  # as the zoo's -i does
    assert len(rates) == 20 and max(rates) <= 0.1 + 1e-6
    assert loaded.exploration_schedule(1.0) == 1.0  # the option of the model is as it was


@pytest.mark.slow
def test_what_was_missing_of_the_first_warm_up_is_made_up_for(saved):
    model = SAC.load(saved, env=counting(), device="cpu", learning_starts=90)
    settings = Settings()
    model.learn(40, callback=[DIAYNCallback(hold=0), settings])
    assert {starts for starts, _ in settings.rows} == {90 - 60}


@pytest.mark.slow
def test_an_empty_buffer_is_filled_with_each_skill_before_anything_is_learned(saved):
    model = SAC.load(saved, env=counting(), device="cpu")
    callback, settings = DIAYNCallback(hold=20), Settings()
    # Skills in turn, 5 steps each: skill 2 has its 20 after 4 rounds of 15 steps.
    model.learn(70, callback=[callback, settings], reset_num_timesteps=False)
    assert [updates for _, updates in settings.rows].index(40 + 1) == 60
    assert callback.trainer.n_updates == model._n_updates == 40 + 11
    assert model.gradient_steps == 1


@pytest.mark.slow
def test_less_is_waited_for_of_a_skill_that_is_drawn_less_often(tmp_path):
    """
    p(z) is 0.5, 0.4, 0.1 of 3 skills, so 20, 20 and 3 * 0.1 * 20 = 6 transitions are enough. In
    turn with 5 steps each, skill 2 has its 6 after 26 steps and skill 1 its 20 after 55.
    """
    model, callback = make_sac(counting()), make_callback()
    model.learn(60, callback=callback)
    callback.discriminator.log_p.copy_(th.tensor([0.5, 0.4, 0.1]).log())
    model.save(tmp_path / "model")
    loaded, settings = SAC.load(tmp_path / "model", env=counting(), device="cpu"), Settings()
    loaded.learn(60, callback=[DIAYNCallback(hold=20), settings], reset_num_timesteps=False)
    assert [updates for _, updates in settings.rows].index(40 + 1) == 55


@pytest.mark.slow
def test_a_full_buffer_is_all_that_one_can_wait_for(saved):
    model = SAC.load(saved, env=counting(), device="cpu", buffer_size=30)
    model.learn(40, callback=DIAYNCallback(), reset_num_timesteps=False)
    assert model._n_updates == 40 + 11


@pytest.mark.slow
def test_without_waiting_learning_begins_at_once(saved):
    model = SAC.load(saved, env=counting(), device="cpu")
    model.learn(10, callback=DIAYNCallback(hold=0), reset_num_timesteps=False)
    assert model._n_updates == 40 + 10


@pytest.mark.slow
def test_a_model_saved_while_it_waits_keeps_its_options(saved, tmp_path):
    model = SAC.load(saved, env=counting(), device="cpu", gradient_steps=2)

    class Save(BaseCallback):
        def _on_step(self) -> bool:
            self.model.save(tmp_path / "waiting")
            return True

    model.learn(8, callback=[DIAYNCallback(), Save()], reset_num_timesteps=False)
    assert SAC.load(tmp_path / "waiting", device="cpu").gradient_steps == 2
    assert model.gradient_steps == 2 and model._n_updates == 40


@pytest.mark.slow
def test_the_history_of_the_discriminator_goes_on(saved, tmp_path):
    model = SAC.load(saved, env=counting(), device="cpu")
    callback = DIAYNCallback(hold=0)
    model.learn(30, callback=callback)
    model.learn(30, callback=callback)
    model.save(tmp_path / "again")
    steps = training_history(load_state(tmp_path / "again"))["time/total_timesteps"]
    assert (np.diff(steps) > 0).all() and steps[-1] == 120
    assert load_state(tmp_path / "again")["progress"]["total_timesteps"] == 120


# -- checkpoints -------------------------------------------------------------------------------


def checkpointed(folder: Any, env: Any = None, **kwargs: Any) -> Any:
    model = make_sac(counting() if env is None else env)
    saving = DIAYNCheckpointCallback(folder, **({"save_freq": 20} | kwargs))
    model.learn(60, callback=[make_callback(), saving])
    return model


@pytest.mark.slow
def test_old_checkpoints_go_and_partial_ones_do_not_count(tmp_path):
    (tmp_path / ".checkpoint_999_steps.part").mkdir()
    (tmp_path / "checkpoint_many_steps").mkdir()
    checkpointed(tmp_path)
    assert list(list_checkpoints(tmp_path)) == [40, 60]
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint_60_steps"
    assert newest_checkpoint(tmp_path / "checkpoint_40_steps").name == "checkpoint_40_steps"
    for name in ("training_state.pt", "model.zip"):  # a copy that was cut short
        (tmp_path / "checkpoint_60_steps" / name).unlink()
        assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint_40_steps"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The training resumes with new episodes")  # CountingEnv
def test_without_buffer_the_model_waits(tmp_path):
    checkpointed(tmp_path, save_replay_buffer=False)
    assert not list(tmp_path.rglob("*.pkl"))
    model = resume(tmp_path, counting(), device="cpu")
    with pytest.warns(UserWarning, match="made no update in this learn.*256 transitions of each"):
        model.learn(20, callback=DIAYNCallback(), reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (80, 40)


@pytest.mark.slow
def test_an_environment_that_does_not_come_back_is_reset_with_a_warning(tmp_path):
    checkpointed(tmp_path)  # the environment counts its episodes, for ever
    model = resume(tmp_path, counting(), device="cpu")
    with pytest.warns(UserWarning, match=r"resumes with new episodes.*did not come back"):
        model.learn(20, callback=DIAYNCallback(), reset_num_timesteps=False)
    assert model._n_updates == 40 + 20


class WarmingUpEnv(StepEnv):
    """Its observations come back; its rewards grow with each episode."""

    n_episodes = 0

    def reset(self, *, seed=None, options=None):
        self.n_episodes += 1
        return super().reset(seed=seed, options=options)

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, float(self.n_episodes), *rest


@pytest.mark.slow
def test_rewards_that_do_not_come_back_are_noticed(tmp_path):
    checkpointed(tmp_path, DIAYNWrapper(WarmingUpEnv(), K))
    model = resume(tmp_path, DIAYNWrapper(WarmingUpEnv(), K), device="cpu")
    with pytest.warns(UserWarning, match=r"resumes with new episodes.*did not come back"):
        model.learn(20, callback=DIAYNCallback(), reset_num_timesteps=False)


@pytest.mark.slow
def test_an_episode_that_is_too_long_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("sb3_diayn.wrappers.MAX_RECORD_BYTES", 16 * 4)  # one float32 each
    checkpointed(tmp_path, counting(length=50), keep=None)
    model = resume(tmp_path / "checkpoint_40_steps", counting(length=50), device="cpu")
    with pytest.warns(UserWarning, match=r"actions of an episode took more than 8 MB"):
        model.learn(5, callback=DIAYNCallback(), reset_num_timesteps=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "n_steps"),
    [
        (np.zeros(3, np.float32), 666_666),  # 12 bytes each
        (np.zeros(64), 15_625),
        (np.int64(1), 1_000_000),
        (np.zeros(125_000), 8),  # a megabyte each
        ({"a": 1}, 0),
    ],
)
def test_the_actions_of_an_endless_episode_take_at_most_8_megabytes(action, n_steps):
    record = EpisodeRecord(None, None, None, {})
    for _ in range(n_steps):
        record.add(action)
    if n_steps:
        kept = record.state()["actions"]
        assert len(kept) == n_steps and (kept == action).all()
        assert len(record._actions) <= MAX_RECORD_BYTES
    record.add(action)
    assert record.state() is None and record._actions is None


def test_recorded_actions_are_copies_and_replay_as_they_were():
    record, action = EpisodeRecord(None, None, None, {}), np.zeros(2, np.float32)
    for step in range(200):
        action[:] = step
        record.add(action)
    kept = record.state()["actions"]
    assert kept.dtype == np.float32 and kept[:, 0].tolist() == list(range(200))
    record.add(action.astype(np.float64))  # of another kind: not what the environment got
    assert record.state() is None


def test_an_episode_comes_back_with_what_the_next_draws_depend_on():
    def make() -> DIAYNWrapper:
        env = DIAYNWrapper(RaggedEnv(), 7, skill="balanced", skill_duration=3)
        env.set_skill_reward(None)
        return env

    env, other = make(), make()
    env.reset(seed=5)
    env.reset()
    for _ in range(4):
        env.step(np.ones(2))
    assert other.restore_episode(env.episode_state())
    for _ in range(3):
        mine, theirs = env.step(np.ones(2)), other.step(np.ones(2))
        assert mine[0].tolist() == theirs[0].tolist() and mine[4]["skill"] == theirs[4]["skill"]
    assert env.reset()[0].tolist() == other.reset()[0].tolist()


@pytest.mark.slow
def test_what_monitor_counts_goes_on(tmp_path):
    def make() -> Any:
        return DIAYNWrapper(gym.make("InvertedPendulum-v5"), K)  # SB3 puts Monitor outside

    model = build(SAC, make(), learning_starts=500)
    saving = DIAYNCheckpointCallback(tmp_path, save_freq=50, keep=None)
    model.learn(120, callback=[make_callback(), saving])
    first = next(iter(list_checkpoints(tmp_path).values()))
    again = resume(first, make(), device="cpu")
    again.learn(120 - again.num_timesteps, callback=DIAYNCallback(), reset_num_timesteps=False)
    counted = [[(i["l"], i["r"]) for i in m.ep_info_buffer] for m in (model, again)]
    assert counted[0] == counted[1] and len(counted[0]) > 3


@pytest.mark.slow
def test_the_guards_know_the_checkpoints(tmp_path):
    checkpointed(tmp_path)
    saving = DIAYNCheckpointCallback(tmp_path)
    assert last_good_checkpoint(saving) == tmp_path / "checkpoint_60_steps" / "model.zip"


# -- what is refused ---------------------------------------------------------------------------


def test_a_folder_without_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path='.*' holds no complete checkpoint; exp"):
        resume(tmp_path, counting())


@pytest.mark.slow
def test_environments_that_do_not_fit(tmp_path):
    checkpointed(tmp_path)
    with pytest.raises(ValueError, match=r"n_envs=2 does not match .*expected 1\. Build as many"):
        resume(tmp_path, counting_vec(2), device="cpu")
    with pytest.raises(ValueError, match=r"n_skills=4, and the checkpoint 3; expected the same"):
        resume(tmp_path, DIAYNWrapper(CountingEnv(), 4), device="cpu")
    with pytest.raises(ValueError, match=r"env has the layers \['VecN.*expected \[\].*same way"):
        resume(tmp_path, VecNormalize(counting_vec(1), norm_reward=False), device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"cannot be read \(.*expected what DIAYNCheckpointCallback wrote\. Use an older"),
        (b"PK\x03\x04", r"cannot be read"),
        (
            {"format_version": 7},
            r"format_version=7 in .*expected one of \(1, 2\)\. Install",
        ),
        ([], r"cannot be read \(TypeError"),
    ],
)
def test_a_damaged_checkpoint(tmp_path, content, match):
    checkpointed(tmp_path, keep=1)
    file = tmp_path / "checkpoint_60_steps" / "training_state.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        th.save(content, file)
    with pytest.raises(ValueError, match=match):
        resume(tmp_path, counting(), device="cpu")


@pytest.mark.parametrize("name", ["save_freq", "keep"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"])
def test_numbers_of_the_callback(name, value, tmp_path):
    with pytest.raises(
        ValueError, match=rf"{name}={value!r} is not allowed; expected a positive integer"
    ):
        DIAYNCheckpointCallback(tmp_path, **{name: value})


@pytest.mark.slow
def test_where_the_callback_cannot_save(tmp_path):
    model = make_sac(counting())
    with pytest.raises(ValueError, match=r"model=SAC has no discriminator; expected .*Pass callb"):
        model.learn(5, callback=DIAYNCheckpointCallback(tmp_path))
    with pytest.raises(ValueError, match=r"save_path='auto' finds no folder; expected .*Pass a"):
        model.learn(5, callback=[make_callback(), DIAYNCheckpointCallback("auto")])
    checkpointed(tmp_path)
    with pytest.raises(ValueError, match=r"holds a checkpoint of 60 steps, .*at 0; expected a fol"):
        checkpointed(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        checkpointed(tmp_path / "file")
