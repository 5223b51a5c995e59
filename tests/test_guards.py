"""Numbers that stop being finite stop the training, with their origin and what is still good."""

import numpy as np
import pytest
import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from sb3_diayn import DIAYNWrapper
from sb3_diayn.checkpoints import last_good_checkpoint
from tests.helpers.envs import CountingEnv, StepEnv
from tests.helpers.models import K, counting, counting_vec, make_callback, make_ppo, make_sac


class At(BaseCallback):
    """Does something at one step."""

    def __init__(self, step: int, action) -> None:
        super().__init__()
        self.step, self.action = step, action

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            self.action(self.model)
        return True


class BrokenEnv(CountingEnv):
    """Its third reward is NaN."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward if self.steps < 3 else np.nan, terminated, truncated, info


class NoRewardEnv(CountingEnv):
    """Its rewards are NaN from the first step on, while rewards are still compared."""

    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        return obs, np.nan, terminated, truncated, info


def test_a_task_reward_of_the_first_step():
    model = make_sac(DIAYNWrapper(NoRewardEnv(), K))
    with pytest.raises(ValueError, match=r"task_reward=nan is not finite at step 1 "):
        model.learn(10, callback=make_callback(task_reward_weight=1.0))


def spoil(module: th.nn.Module, name: str, value: float = np.nan) -> None:
    with th.no_grad():
        module.get_parameter(name).view(-1)[1] = value


def spoil_discriminator(callback, step, value=np.nan):
    return At(step, lambda model: spoil(callback.discriminator, "net.0.weight", value))


@pytest.mark.parametrize("make_model", [make_sac, make_ppo])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_task_reward(make_model, n_envs):
    env = counting_vec(n_envs)
    env.envs[-1] = DIAYNWrapper(BrokenEnv(), K)
    with pytest.raises(ValueError, match=r"task_reward=nan is not finite at step \d+ ") as caught:
        make_model(env).learn(100, callback=make_callback())
    assert f"at step {3 * n_envs} " in str(caught.value)
    assert "No good checkpoint is known" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("make_model", [make_sac, make_ppo])
def test_a_parameter_of_the_discriminator(make_model, value):
    callback = make_callback()
    name = r"discriminator\.net\.0\.weight\[0, \d\]=(nan|inf) is not finite at step 31 "
    with pytest.raises(ValueError, match=name + r".*lower learning_rate, or a max_grad_norm"):
        make_model(counting()).learn(
            60, callback=[callback, spoil_discriminator(callback, 30, value)]
        )


def test_a_discriminator_that_diverges():
    with pytest.raises(ValueError, match=r"is not finite at step \d+ .*, or a max_grad_norm"):
        make_sac(counting()).learn(200, callback=make_callback(learning_rate=1e29))


def test_a_parameter_of_the_policy():
    """Of an algorithm that samples no distribution: torch itself refuses to sample from NaN."""
    spoiling = At(10, lambda model: spoil(model.policy, "actor.mu.0.weight"))
    model = TD3("MlpPolicy", counting(), learning_starts=5, seed=0, device="cpu", buffer_size=100)
    with pytest.raises(ValueError, match=r"action=\[nan\] is not finite .*The policy has diverged"):
        model.learn(60, callback=[make_callback(), spoiling])


def test_a_loss_of_the_model():
    """The critic does not act, so its loss tells first."""
    spoiling = At(26, lambda model: spoil(model.policy, "critic_target.qf0.0.weight"))
    match = r"policy\.actor.*is not finite at step .*noticed in train/.*lower learning_rate"
    with pytest.raises(ValueError, match=match):
        make_sac(counting(), learning_starts=25).learn(60, callback=[make_callback(), spoiling])


@pytest.mark.parametrize("name", ["observations", "next_observations", "actions", "rewards"])
def test_a_column_of_the_replay_buffer(name):
    """Recorded before there was a callback, or loaded."""
    model = make_sac(counting())
    with pytest.warns(UserWarning, match="no discriminator"):
        model.learn(10)
    getattr(model.replay_buffer, name)[3, 0, ...] = np.inf
    column = "" if name == "rewards" else r"\[0\]"
    match = rf"replay_buffer\.{name}\[3, 0\]{column}=inf is not finite; .*an empty replay buffer"
    with pytest.raises(ValueError, match=match):
        model.learn(10, callback=make_callback())


def test_a_discriminator_that_diverges_leaves_the_policy_alone():
    """The training stops before the wrapper's next reward, after 3 updates of the policy."""
    callback, model = make_callback(), make_sac(counting(), gradient_steps=3)
    with pytest.raises(ValueError, match=r"discriminator\.net"):
        model.learn(60, callback=[callback, spoil_discriminator(callback, 30)])
    assert all(th.isfinite(value).all() for value in model.policy.state_dict().values())


def test_an_explained_variance_that_is_not_a_number_is_no_loss():
    """PPO logs NaN where all returns are equal."""
    callback = make_callback()
    record = At(30, lambda model: model.logger.record("train/explained_variance", np.nan))
    make_ppo(counting()).learn(60, callback=[record, callback])
    assert callback.trainer.n_updates > 0


def test_the_last_good_checkpoint(tmp_path):
    """Checkpoints at 10, 20, ..., the discriminator spoils at 35 and an episode ends at 40."""
    callback = make_callback()
    saving = CheckpointCallback(10, str(tmp_path), "model")
    # Spoiled after the step's rewards are known, and saved so at 40, before the guard sees it.
    callbacks = [saving, callback, spoil_discriminator(callback, 39)]
    with pytest.raises(ValueError, match="The last good checkpoint is ") as caught:
        make_sac(counting()).learn(60, callback=callbacks)
    assert (tmp_path / "model_40_steps.zip").is_file()
    assert str(tmp_path / "model_30_steps.zip") in str(caught.value)


def test_checkpoints_that_are_not_good(tmp_path):
    callback, model = make_callback(), make_sac(counting())
    env = make_vec_env(counting, 1)
    best = EvalCallback(env, eval_freq=10, n_eval_episodes=1, best_model_save_path=str(tmp_path))
    saving = CheckpointCallback(10, str(tmp_path), "model")
    model.learn(30, callback=[callback, saving, best])
    newest = [tmp_path / "model_30_steps.zip", tmp_path / "model_20_steps.zip"]
    assert last_good_checkpoint([]) is None
    assert last_good_checkpoint(best) == tmp_path / "best_model.zip"
    assert last_good_checkpoint(saving) == newest[0]
    newest[0].write_bytes(newest[0].read_bytes()[:-100])
    assert last_good_checkpoint(saving) == newest[1]
    spoil(model.policy, "actor.mu.weight")
    model.save(newest[1])
    assert last_good_checkpoint(saving) == tmp_path / "model_10_steps.zip"
    model.save(tmp_path / "model_10_steps.zip")
    assert last_good_checkpoint(saving) is None


def test_infos_that_a_wrapper_replaces():
    class NoInfos(VecEnvWrapper):
        def reset(self):
            return self.venv.reset()

        def step_wait(self):
            obs, rewards, dones, infos = self.venv.step_wait()
            return obs, rewards, dones, [{} for _ in infos]

    env = NoInfos(DummyVecEnv([lambda: DIAYNWrapper(StepEnv(), n_skills=K)]))
    with pytest.raises(ValueError, match=r"has no \['skill', 'task_reward', 'skill_reward'\]"):
        make_sac(env).learn(10, callback=make_callback())
