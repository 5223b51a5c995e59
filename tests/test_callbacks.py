import json
import math
import warnings

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_diayn import DIAYNCallback, DIAYNWrapper, SkillReplayBuffer, load_discriminator
from sb3_diayn.model_zip import load_state
from sb3_diayn.trainer import DiscriminatorTrainer
from tests.helpers.envs import CountingEnv, TwoStateEnv
from tests.helpers.models import (
    K,
    counting,
    counting_vec,
    log_q,
    make_callback,
    make_ppo,
    make_sac,
)

LOG_KEYS = {
    "discriminator_loss",
    "log_q_z",
    "accuracy",
    "skill_reward",
    "skill_return",
    "task_return",
    "effective_skills",
    "n_updates",
    "skills_seen",
}


def parameters(module: th.nn.Module) -> dict[str, th.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> bool:
    return first.keys() == second.keys() and all(th.equal(first[k], second[k]) for k in first)


# -- how much, and when ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n_updates", [1, 3])
@pytest.mark.parametrize(
    ("n_envs", "train_freq", "gradient_steps", "policy_updates"),
    [
        (1, 1, 1, 80),
        (1, 4, 2, 40),
        (1, 10, -1, 80),
        (1, (2, "episode"), -1, 80),
        (2, 1, 1, 40),
        (2, 5, -1, 80),
        (1, 5, 0, 0),
    ],
)
def test_updates_per_policy_update(n_envs, train_freq, gradient_steps, policy_updates, n_updates):
    model = make_sac(counting_vec(n_envs), train_freq=train_freq, gradient_steps=gradient_steps)
    callback = make_callback(n_updates=n_updates)
    model.learn(100, callback=callback)
    # learning_starts is 20, so 80 of the 100 steps are followed by updates.
    assert model._n_updates == policy_updates
    assert callback.trainer.n_updates == policy_updates * n_updates


def test_no_update_before_learning_starts():
    model, callback = make_sac(counting(), learning_starts=30), make_callback()
    model.learn(30, callback=callback)
    assert callback.trainer.n_updates == model._n_updates == 0
    model.learn(1, callback=callback, reset_num_timesteps=False)
    assert callback.trainer.n_updates == model._n_updates == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("models", "batch_size", "expected"),
    [
        (16, None, 16),
        (200, None, 128),
        (256, None, 128),
        (600, None, 300),
        (256, 256, 256),
        (16, 5, 5),
    ],
)
def test_the_batch_size_is_half_of_a_large_one_unless_given(
    monkeypatch, models, batch_size, expected
):
    sizes = set()
    backward = DiscriminatorTrainer.backward

    def record(self, batch, n_learned):
        sizes.add(n_learned)
        return backward(self, batch, n_learned)

    monkeypatch.setattr(DiscriminatorTrainer, "backward", record)
    model = make_sac(counting(), batch_size=models)
    model.learn(25, callback=make_callback(batch_size=batch_size))
    assert sizes == {expected}


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"normalize_obs": True}, marks=pytest.mark.slow),
        {"n_updates": 2},
        pytest.param({"batch_size": 5}, marks=pytest.mark.slow),
        pytest.param({"batch_size": 32}, marks=pytest.mark.slow),
    ],
)
def test_rewards_are_those_of_the_present_discriminator_in_each_policy_update(monkeypatch, options):
    model, callback = make_sac(counting(), train_freq=4, gradient_steps=3), make_callback(**options)
    sample, versions = SkillReplayBuffer.sample, []

    def check(self, *args, **kwargs):
        samples = sample(self, *args, **kwargs)
        skill_space = callback.skill_space
        next_obs, skills = skill_space.split(samples.next_observations.numpy())
        rewards = callback.discriminator.reward(th.as_tensor(next_obs), th.as_tensor(skills))
        np.testing.assert_allclose(samples.rewards.flatten(), rewards, atol=1e-6)
        versions.append(callback.trainer.n_updates)
        return samples

    monkeypatch.setattr(SkillReplayBuffer, "sample", check)
    model.learn(60, callback=callback)
    assert len(set(versions)) >= 10, "the discriminator has moved in between"


def test_samples_outside_of_training_teach_nothing():
    model, callback = make_sac(counting()), make_callback()
    model.learn(40, callback=callback)
    before = parameters(callback.discriminator)
    for _ in range(3):
        model.replay_buffer.sample(16)
    assert callback.trainer.n_updates == model._n_updates
    assert not callback.trainer.has_gradient
    assert equal(before, parameters(callback.discriminator))


def test_the_learning_rate_is_used():
    callback = make_callback(learning_rate=0.125)
    make_sac(counting()).learn(5, callback=callback)
    assert [group["lr"] for group in callback.trainer.optimizer.param_groups] == [0.125]


# -- what is logged ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_sac, make_ppo])
def test_log_keys(make, tmp_path):
    model, callback = make(counting()), make_callback()
    model.set_logger(configure(str(tmp_path), ["json"]))
    model.learn(96, callback=callback, log_interval=1)
    model.logger.close()
    lines = (tmp_path / "progress.json").read_text().splitlines()
    last = json.loads(lines[-1])
    last = {key.removeprefix("diayn/"): v for key, v in last.items() if key.startswith("diayn/")}
    assert last.keys() == LOG_KEYS
    assert last["task_return"] == 15  # 1 + 2 + 3 + 4 + 5
    assert last["skill_return"] == pytest.approx(5 * last["skill_reward"])
    assert last["skill_reward"] < math.log(K)
    assert last["log_q_z"] == -last["discriminator_loss"] < 0
    assert 0 <= last["accuracy"] <= 1
    assert last["effective_skills"] == pytest.approx(K)
    assert 0 < last["n_updates"] <= callback.trainer.n_updates


def test_the_first_loss_is_near_log_k():
    model, callback = make_sac(counting(length=2)), make_callback(normalize_obs=True)
    model.learn(21, callback=callback)
    assert callback.trainer.n_updates == 1
    assert callback.trainer.metrics()["discriminator_loss"] == pytest.approx(math.log(K), abs=0.5)


# -- resuming ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_seed_gives_the_same_parameters_to_the_bit():
    def run(seed):
        model, callback = make_sac(counting(), train_freq=5, seed=seed), make_callback()
        model.learn(500, callback=callback)
        return parameters(model.policy), parameters(callback.discriminator)

    first, second, other = run(3), run(3), run(4)
    assert equal(first[0], second[0]) and equal(first[1], second[1])
    assert not equal(first[1], other[1])


@pytest.mark.slow
def test_a_later_learn_goes_on_from_the_zip(tmp_path):
    options = {"n_updates": 2, "normalize_obs": True, "obs_indices": "0:1", "task_reward_weight": 2}
    first = make_callback(**options)
    model = make_sac(counting())
    model.learn(60, callback=first)
    model.save(tmp_path / "model")
    assert first.trainer.n_updates == 80

    loaded = SAC.load(tmp_path / "model", env=counting(), device="cpu")
    second = DIAYNCallback()
    loaded.learn(10, callback=second)
    assert equal(parameters(second.discriminator), parameters(first.discriminator))
    assert second.trainer.metrics() == first.trainer.metrics()
    assert second.trainer.rng.random() == first.trainer.rng.random()
    mine, theirs = (cb.trainer.optimizer.state_dict()["state"] for cb in (first, second))
    for index in mine:
        assert equal(mine[index], theirs[index])
    assert second.options == first.options
    assert second.skill_reward.task_weight == 2

    loaded.learn(50, callback=second)
    assert second.trainer.n_updates == 80  # it waits for 256 transitions of each skill
    loaded.replay_buffer.full = True
    loaded.learn(40, callback=second)
    assert second.trainer.n_updates == 80 + 80
    assert not equal(parameters(second.discriminator), parameters(first.discriminator))


def test_options_that_are_given_replace_the_options_of_the_zip(tmp_path):
    model = make_sac(counting())
    model.learn(30, callback=make_callback(n_updates=2, reward_scale=3.0))
    model.save(tmp_path / "model")
    loaded = SAC.load(tmp_path / "model", env=counting(), device="cpu")
    callback = DIAYNCallback(n_updates=4)
    loaded.learn(5, callback=callback)
    assert callback.options["n_updates"] == 4 and callback.options["reward_scale"] == 3.0


@pytest.mark.slow
@pytest.mark.parametrize("new_callback", [False, True])
def test_learning_twice_in_one_process_goes_on(new_callback):
    model, callback = make_sac(counting()), make_callback()
    model.learn(40, callback=callback)
    before = parameters(callback.discriminator)
    again = make_callback() if new_callback else callback
    model.learn(1, callback=again, reset_num_timesteps=False)
    assert again.trainer.n_updates == 21
    assert not equal(parameters(again.discriminator), before)
    assert model.replay_buffer.size() == 41
    assert model.replay_buffer.skill_reward.discriminator is again.discriminator


@pytest.mark.slow
def test_a_callback_that_went_on_to_another_model_leaves_the_first_alone(tmp_path):
    callback = make_callback()
    first, second = make_sac(counting()), make_sac(counting(), seed=1)
    first.learn(30, callback=callback)
    before = parameters(callback.discriminator)
    second.learn(40, callback=callback)
    first.save(tmp_path / "first")
    assert equal(parameters(load_discriminator(tmp_path / "first")), before)


def test_a_callback_tells_of_the_episodes_of_the_present_model_alone():
    reused, fresh = make_callback(), make_callback()
    make_sac(counting()).learn(60, callback=reused)
    make_sac(counting(skill="balanced"), seed=1).learn(40, callback=reused)
    make_sac(counting(skill="balanced"), seed=1).learn(40, callback=fresh)
    names = ("returns", "episodes", "skills_seen")
    progress = [callback.state()["progress"] for callback in (reused, fresh)]
    assert progress[0]["episodes"]
    assert len({str({name: each[name] for name in names}) for each in progress}) == 1
    assert reused.metrics()["task_return"] == fresh.metrics()["task_return"]


# -- options -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_learned_p_z_leaves_the_uniform_one():
    uniform, learned = make_callback(), make_callback(learn_p_z=True, p_z_update_freq=20)
    for callback in (uniform, learned):
        model = make_sac(counting(skill="uniform"))
        model.learn(100, callback=callback)
        sampled = model.replay_buffer.sample(50)
        skills = sampled.observations[:, 2:].argmax(dim=1)
        expected = log_q(callback.discriminator, sampled.next_observations[:, :2], skills)
        expected -= callback.discriminator.log_p[skills].numpy()
        np.testing.assert_allclose(sampled.rewards[:, 0], expected, atol=1e-5)
    assert uniform.trainer.metrics()["effective_skills"] == pytest.approx(K, abs=1e-5)
    assert learned.trainer.metrics()["effective_skills"] < K - 1e-3
    assert learned.discriminator.log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("skill", ["balanced", "cycle", "stratified"])
def test_a_learned_p_z_needs_skills_that_are_drawn_from_it(skill):
    with pytest.raises(ValueError, match=rf"skill='{skill}' .*; expected skill='uniform'"):
        make_sac(counting(skill=skill)).learn(1, callback=make_callback(learn_p_z=True))


@pytest.mark.slow
def test_log_q_min_reaches_the_sampled_rewards():
    model, callback = make_sac(counting()), make_callback(log_q_min=-1.5, subtract_log_p=False)
    model.learn(60, callback=callback)
    callback.discriminator.net[-1].weight.data.mul_(100)
    rewards = model.replay_buffer.sample(200).rewards
    assert rewards.min().item() == -1.5 and rewards.max().item() <= 0


# -- other environments ------------------------------------------------------------------------


class Check(BaseCallback):
    """Compares the rewards of each step with the discriminator of this process."""

    def __init__(self, callback: DIAYNCallback) -> None:
        super().__init__()
        self.callback, self.n_checked = callback, 0

    def _on_step(self) -> bool:
        infos, new_obs = self.locals["infos"], self.locals["new_obs"]
        obs = [info.get("terminal_env_obs", new_obs[i, :2]) for i, info in enumerate(infos)]
        skills = [info["skill"] for info in infos]
        expected = log_q(self.callback.discriminator, np.array(obs), skills) + math.log(K)
        np.testing.assert_allclose(self.locals["rewards"], expected, atol=1e-5)
        self.n_checked += len(infos)
        return True


@pytest.mark.slow
def test_copies_in_other_processes_are_those_of_the_rollout():
    env = make_vec_env(counting, 2, vec_env_cls=SubprocVecEnv)
    model, callback = make_ppo(env), make_callback()
    try:
        check = Check(callback)
        model.learn(3 * 48, callback=[check, callback])
    finally:
        env.close()
    assert check.n_checked == 144 and callback.trainer.n_updates == 36


def strict_counting():
    """In a worker process nobody would see a warning; an error ends it."""
    warnings.simplefilter("error", UserWarning)
    return counting()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
@pytest.mark.parametrize(
    ("vec_env_cls", "nested"), [(DummyVecEnv, False), (DummyVecEnv, True), (SubprocVecEnv, False)]
)
def test_no_warning_from_the_environment_of_an_evaluation(vec_env_cls, nested):
    eval_env = make_vec_env(strict_counting, 1, vec_env_cls=vec_env_cls)
    evaluation = EvalCallback(eval_env, eval_freq=10, n_eval_episodes=1, verbose=0, warn=False)
    callbacks = [evaluation, make_callback()]
    try:
        model = make_sac(make_vec_env(counting, 1))
        model.learn(25, callback=CallbackList([CallbackList(callbacks)] if nested else callbacks))
    finally:
        eval_env.close()
    assert evaluation.last_mean_reward == 15  # the task's


def test_training_without_the_callback_warns():
    with pytest.warns(UserWarning, match=r"to learn skills, pass callback=DIAYNCallback\(\)"):
        make_sac(counting()).learn(10)


@pytest.mark.parametrize("make", [make_sac, make_ppo])
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_later_training_without_the_callback_warns(make, interrupted):
    """It has the rewards of a discriminator that no longer learns."""

    class Stop(BaseCallback):
        def _on_step(self):
            if interrupted and self.num_timesteps == 40:
                raise KeyboardInterrupt
            return True

    callback = make_callback(absorbing=True)
    model = make(counting(length=5))
    try:
        model.learn(48, callback=[callback, Stop()])
    except KeyboardInterrupt:
        assert interrupted
    n_updates = callback.trainer.n_updates
    with pytest.warns(UserWarning, match="has no DIAYNCallback.*discriminator does not learn"):
        model.learn(24, callback=(seen := Rewards()), reset_num_timesteps=False)
    callback.trainer.step()
    assert callback.trainer.n_updates <= n_updates + 1  # of the gradient of before
    if make is make_ppo:  # no rewards of the rollout that was interrupted
        np.testing.assert_allclose(model.rollout_buffer.rewards[:, 0], seen.rewards, rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.learn(48, callback=callback)
    assert callback.trainer.n_updates > n_updates + 1


class Rewards(BaseCallback):
    def __init__(self):
        super().__init__()
        self.rewards = []

    def _on_step(self):
        self.rewards.append(float(self.locals["rewards"][0]))
        return True


@pytest.mark.parametrize("value", ["l2", None, th.zeros(5), float("nan")], ids=repr)
def test_entries_of_other_callbacks_are_not_losses(value):
    class Logging(BaseCallback):
        def _on_step(self):
            self.logger.record("val/loss", value, exclude="stdout")
            return True

    model = make_sac(counting())
    model.learn(40, callback=[make_callback(), Logging()], log_interval=1000)
    assert model.num_timesteps == 40


def test_a_number_of_steps_of_numpy_is_saved_as_plain_data(tmp_path):
    model = make_ppo(counting())
    model.learn(np.int64(24), callback=make_callback())
    model.save(tmp_path / "model")
    assert load_state(tmp_path / "model")["progress"]["frozen"] == [24, 24]


def test_a_loaded_model_goes_on_with_other_skills(tmp_path):
    """SB3 seeds its environments again as those of a new model."""
    model, drawn = make_ppo(DIAYNWrapper(CountingEnv(length=1), 10)), []
    for _ in range(3):
        skills = Skills()
        model.learn(24, callback=[make_callback(), skills])
        model.save(tmp_path / "model")
        env = DIAYNWrapper(CountingEnv(length=1), 10)
        model = PPO.load(tmp_path / "model", env=env, device="cpu")
        drawn.append(tuple(skills.drawn[1:]))  # the first one is drawn before the callback hears
    assert len(set(drawn)) == 3


class Skills(BaseCallback):
    def __init__(self):
        super().__init__()
        self.drawn = []

    def _on_step(self):
        self.drawn.append(self.locals["infos"][0]["skill"])
        return True


def test_a_loaded_model_plays_for_the_task_reward(tmp_path):
    model = make_sac(counting())
    model.learn(30, callback=make_callback())
    model.save(tmp_path / "model")
    env = make_vec_env(lambda: counting(skill=1), 1)
    loaded = SAC.load(tmp_path / "model", device="cpu")
    assert evaluate_policy(loaded, env, n_eval_episodes=2) == (15, 0)


# -- learning ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_skills_divide_two_states():
    """The optimum of the mean skill reward is log 2 = 0.693."""
    callback = DIAYNCallback(net_arch=[32], learning_rate=1e-2)
    env = DIAYNWrapper(TwoStateEnv(), 2, skill="balanced")
    model = SAC(
        "MlpPolicy",
        env,
        policy_kwargs={"net_arch": [32]},
        learning_rate=3e-3,
        learning_starts=100,
        batch_size=64,
        buffer_size=300,
        ent_coef=0.02,
        train_freq=2,
        gamma=0.9,
        seed=0,
        device="cpu",
    )
    model.learn(1200, callback=callback)
    rewards = []
    for skill in range(2):
        obs, _ = env.reset(options={"skill": skill})
        done = False
        while not done:
            obs, reward, _, done, _ = env.step(model.predict(obs, deterministic=True)[0])
            rewards.append(reward)
    assert len(rewards) == 20 and 0.6 <= np.mean(rewards) <= math.log(2)
