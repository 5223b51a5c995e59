"""An exported skill acts and values as the model does with it, and needs nothing of ours."""

import functools
import subprocess
import sys
import zipfile
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import QRDQN, TQC, TRPO, CrossQ, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from torch import nn

from sb3_diayn import DIAYNWrapper, SkillEvaluation, best_skill, export_skill, rank_skills
from sb3_diayn.downstream.export import export_vec_normalize
from sb3_diayn.evaluation.trajectories import Trajectory
from sb3_diayn.skills import SkillSpace
from tests.helpers.envs import CountingEnv, EchoEnv, PointEnv
from tests.helpers.models import K, counting, make_callback, make_dqn, make_sac

SKILL = 1
OFF_POLICY = {"learning_starts": 20, "batch_size": 16, "buffer_size": 300, "train_freq": 4}
ON_POLICY = {"n_steps": 40}
ALGORITHMS = {
    "SAC": (SAC, False, OFF_POLICY),
    "SAC, gSDE": (SAC, False, OFF_POLICY | {"use_sde": True}),
    "TQC": (TQC, False, OFF_POLICY),
    "CrossQ": (CrossQ, False, OFF_POLICY),
    "TD3": (TD3, False, OFF_POLICY),
    "DDPG": (DDPG, False, OFF_POLICY),
    "DQN": (DQN, True, OFF_POLICY),
    "QR-DQN": (QRDQN, True, OFF_POLICY),
    "PPO": (PPO, False, ON_POLICY | {"batch_size": 20}),
    "PPO, gSDE": (PPO, False, ON_POLICY | {"batch_size": 20, "use_sde": True}),
    "PPO, Discrete": (PPO, True, ON_POLICY | {"batch_size": 20}),
    "A2C": (A2C, False, ON_POLICY),
    "TRPO": (TRPO, False, ON_POLICY | {"batch_size": 20}),
    "RecurrentPPO": (RecurrentPPO, False, ON_POLICY | {"batch_size": 20}),
}


def small_policy(algorithm: Any) -> tuple[str, dict[str, Any]]:
    if algorithm is RecurrentPPO:
        return "MlpLstmPolicy", {"net_arch": [16], "lstm_hidden_size": 8}
    return "MlpPolicy", {"net_arch": [16, 16], "activation_fn": nn.Tanh}


def train(algorithm: Any, discrete: bool, options: dict[str, Any], env: Any = None) -> Any:
    policy, policy_kwargs = small_policy(algorithm)
    env = env or counting(discrete=discrete)
    model = algorithm(policy, env, policy_kwargs=policy_kwargs, device="cpu", seed=0, **options)
    return model.learn(80, callback=make_callback())


@functools.cache
def trained(name: str) -> Any:
    """A model that tests only look at."""
    return train(*ALGORITHMS[name])


def observations(n: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, (n, 2)).astype(np.float32)


def outputs(model: Any, obs: Any) -> dict[str, np.ndarray]:
    """Actions and the values of all critics, targets too."""
    policy, result = model.policy, {}
    policy.set_training_mode(False)
    inputs = policy.obs_to_tensor(obs)[0]
    actions = model.predict(obs, deterministic=True)[0]
    result["actions"] = actions
    with th.no_grad():
        if isinstance(model, RecurrentPPO):
            zeros = th.zeros(1, len(obs), 8)
            starts = th.zeros(len(obs))
            result["values"] = policy.predict_values(inputs, (zeros, zeros), starts).numpy()
            return result
        if hasattr(policy, "predict_values"):
            result["values"] = policy.predict_values(inputs).numpy()
            dist = policy.get_distribution(inputs).distribution
            result["distribution"] = (dist.mean if hasattr(dist, "loc") else dist.logits).numpy()
        for name in ("q_net", "q_net_target", "quantile_net", "quantile_net_target"):
            if hasattr(policy, name):
                result[name] = getattr(policy, name)(inputs).numpy()
        for name in ("critic", "critic_target"):
            critic = getattr(policy, name, None)
            if critic is not None:
                values = critic(inputs, th.as_tensor(actions).reshape(len(actions), -1))
                result[name] = (th.stack(values) if isinstance(values, tuple) else values).numpy()
    return result


def assert_same(model: Any, exported: Any, skill: int = SKILL) -> None:
    obs = observations()
    space = SkillSpace(spaces.Box(-1e6, 1e6, (2,)), K)
    expected = outputs(model, space.append(obs, np.full(len(obs), skill)))
    found = outputs(exported, obs)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        scale = max(1.0, np.abs(values).max())  # float32 has no absolute precision
        assert np.abs(found[name] - values).max() <= 1e-6 * scale, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_actions_and_critics_are_those_of_the_skill(name):
    model = trained(name)
    exported = export_skill(model, SKILL)
    assert type(exported) is type(model)
    assert_same(model, exported)
    other = outputs(exported, observations())
    assert any(
        np.abs(values - other[key]).max() > 1e-4
        for key, values in outputs(export_skill(model, SKILL + 1), observations()).items()
    )


WITHOUT_PACKAGE = """
import sys
sys.modules["sb3_diayn"] = None  # any import of it now raises ModuleNotFoundError
import gymnasium as gym, numpy as np, sb3_contrib, stable_baselines3
from gymnasium import spaces
import torch as th
th.set_num_threads(1)

class Env(gym.Env):
    def __init__(self, discrete):
        self.observation_space = spaces.Box(-1e6, 1e6, (2,), np.float32)
        box = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.action_space = spaces.Discrete(3) if discrete else box
        self.steps = 0
    def reset(self, seed=None, options=None):
        self.steps = 0
        return np.zeros(2, np.float32), {}
    def step(self, action):
        self.steps += 1
        return np.full(2, self.steps, np.float32), 1.0, False, self.steps == 5, {}

for path in sys.argv[1:]:
    name = path.split("/")[-1].split(".")[0].split(",")[0].replace("-", "")
    cls = getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)
    model = cls.load(path, device="cpu")
    env = Env(isinstance(model.action_space, spaces.Discrete))
    model = cls.load(path, env=env, device="cpu")
    before = [p.clone() for p in model.policy.parameters()]
    model.learn(40)
    after = model.policy.parameters()
    assert any(not th.equal(b, a) for b, a in zip(before, after)), name
print("learned", len(sys.argv) - 1)
"""


@pytest.mark.slow
def test_zips_load_and_learn_where_this_package_is_missing(tmp_path):
    paths = []
    for name in ALGORITHMS:
        paths.append(str(tmp_path / f"{name}.zip"))
        export_skill(trained(name), SKILL).save(paths[-1])
        with zipfile.ZipFile(paths[-1]) as archive:
            content = b"".join(archive.read(member) for member in archive.namelist())
        assert b"diayn" not in content
    words = [sys.executable, "-W", "ignore", "-c", WITHOUT_PACKAGE, *paths]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.stdout == f"learned {len(ALGORITHMS)}\n", done.stderr


# -- what survives, and what does not ----------------------------------------------------------


def test_hyperparameters_survive_and_optimizers_start_afresh():
    model = train(SAC, False, OFF_POLICY | {"gamma": 0.9, "ent_coef": "auto_0.3", "tau": 0.01})
    exported = export_skill(model, SKILL)
    for name in ("gamma", "tau", "batch_size", "buffer_size", "learning_starts", "train_freq"):
        assert getattr(exported, name) == getattr(model, name)
    assert exported.policy_kwargs == model.policy_kwargs
    assert exported.num_timesteps == 80
    assert exported.log_ent_coef.item() == model.log_ent_coef.item() != np.log(0.3)
    assert exported.actor.optimizer.state_dict()["state"] == {}
    assert model.actor.optimizer.state_dict()["state"] != {}
    assert exported.replay_buffer.size() == 0
    assert not hasattr(exported, "diayn_state")


@pytest.mark.slow
def test_the_model_itself_stays_as_it_is():
    model = trained("SAC")
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    export_skill(model, SKILL, env=CountingEnv()).learn(60)
    after = model.policy.state_dict()
    assert all(th.equal(value, after[name]) for name, value in before.items())
    assert model.diayn_state is not None


def test_a_loaded_model_is_exported_alike(tmp_path):
    model = trained("SAC")
    model.save(tmp_path / "model")
    assert_same(model, export_skill(SAC.load(tmp_path / "model", device="cpu"), SKILL))


def test_several_skills_of_one_model_differ_only_in_biases():
    model = trained("SAC")
    states = [export_skill(model, skill).policy.state_dict() for skill in range(K)]
    differing = {k for k in states[0] if not th.equal(states[0][k], states[1][k])}
    networks = ["actor.latent_pi", *(f"critic{t}.qf{i}" for t in ("", "_target") for i in (0, 1))]
    assert differing == {f"{network}.0.bias" for network in networks}


# -- environments ------------------------------------------------------------------------------


def test_the_model_gets_the_space_of_the_given_environment():
    model = trained("SAC")
    env = DummyVecEnv([CountingEnv] * 3)
    exported = export_skill(model, SKILL, env=env)
    assert exported.observation_space == env.observation_space
    assert exported.observation_space.dtype == np.float64
    assert exported.n_envs == 3
    exported.learn(60)
    assert exported.num_timesteps == 60


@pytest.mark.slow
def test_without_environment_the_registered_one_gives_the_space(tmp_path):
    env = gym.make("sb3_diayn_tests/CountingEnv-v0")
    model = train(SAC, False, OFF_POLICY, DIAYNWrapper(env, K))
    export_skill(model, SKILL).save(tmp_path / "skill")
    loaded = SAC.load(tmp_path / "skill", env=gym.make("sb3_diayn_tests/CountingEnv-v0"))
    assert loaded.observation_space.dtype == np.float64
    unregistered = export_skill(trained("SAC"), SKILL)
    assert unregistered.observation_space.dtype == np.float32


def test_action_noise_of_many_environments_becomes_that_of_one():
    noise = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    env = DummyVecEnv([counting] * 2)
    model = train(TD3, False, OFF_POLICY | {"action_noise": noise}, env)
    assert export_skill(model, SKILL, env=CountingEnv()).learn(60).num_timesteps == 60


@pytest.mark.slow
@pytest.mark.parametrize("clip_obs", [10.0, 0.7])
def test_normalized_observations(tmp_path, clip_obs):
    venv = VecNormalize(DummyVecEnv([counting] * 2), norm_reward=False, clip_obs=clip_obs)
    model = train(SAC, False, OFF_POLICY, venv)
    model.save(tmp_path / "model")
    venv.save(str(tmp_path / "vecnormalize.pkl"))
    loaded = SAC.load(tmp_path / "model", device="cpu")
    plain = DummyVecEnv([CountingEnv])
    normalized = export_vec_normalize(venv, plain)
    obs = observations()
    full = SkillSpace(plain.observation_space, K).append(obs, np.full(len(obs), SKILL))
    expected = outputs(model, venv.normalize_obs(full))
    for source, statistics in ((model, None), (loaded, venv)):
        exported = export_skill(source, SKILL, env=normalized, vec_normalize=statistics)
        found = outputs(exported, normalized.normalize_obs(obs))
        for name, values in expected.items():
            assert np.abs(found[name] - values).max() <= 1e-6 * max(1, np.abs(values).max())
    assert exported.learn(60).get_vec_normalize_env() is normalized
    with pytest.raises(ValueError, match=r"VecNormalize is missing: the model was trained on obs"):
        export_skill(loaded, SKILL, env=plain)


@pytest.mark.slow
def test_statistics_that_do_not_belong_to_the_model_are_refused():
    """Those that have seen nothing, and any for a model that was trained on raw observations."""
    venv = VecNormalize(DummyVecEnv([counting]), norm_reward=False)
    model = train(SAC, False, OFF_POLICY, venv)
    new = VecNormalize(DummyVecEnv([counting]))
    with pytest.raises(ValueError, match=r"vec_normalize has seen no observation yet; expected"):
        export_skill(model, SKILL, vec_normalize=new)
    raw = train(SAC, False, OFF_POLICY, DummyVecEnv([counting]))
    with pytest.raises(
        ValueError, match=r"VecNormalize normalises observations, and the model was tr"
    ):
        export_skill(raw, SKILL, vec_normalize=venv)


def test_exported_statistics_need_nothing_of_this_package(tmp_path):
    venv = VecNormalize(DummyVecEnv([counting]), norm_reward=False)
    venv.reset()
    plain = DummyVecEnv([CountingEnv])
    export_vec_normalize(venv, plain).save(str(tmp_path / "stats.pkl"))
    assert b"diayn" not in (tmp_path / "stats.pkl").read_bytes()
    assert VecNormalize.load(str(tmp_path / "stats.pkl"), plain).reset().shape == (1, 2)
    assert venv.obs_rms.mean.shape == (2 + K,)


@pytest.mark.parametrize("env", [lambda: PointEnv(), counting])
def test_statistics_of_another_environment_are_refused(env):
    venv = VecNormalize(DummyVecEnv([counting]), norm_reward=False)
    with pytest.raises(ValueError, match=r"expected (.*of any dtype|an integer of at least 2)"):
        export_vec_normalize(venv, DummyVecEnv([env]))


# -- Dict observations --------------------------------------------------------------------------


def echo(kind: str, box: bool = True) -> gym.Env:
    return DIAYNWrapper(EchoEnv(kind, box=box), K)


def train_dict(algorithm: Any, env: Any, **options: Any) -> Any:
    kwargs = {"net_arch": [16]}
    model = algorithm("MultiInputPolicy", env, policy_kwargs=kwargs, device="cpu", **options)
    return model.learn(50, callback=make_callback())


def sample_batch(space: spaces.Dict, n: int = 200) -> dict[str, np.ndarray]:
    space.seed(0)
    rows = [space.sample() for _ in range(n)]
    return {key: np.stack([row[key] for row in rows]) for key in space.spaces}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "kind"), [(SAC, "dict"), (PPO, "dict"), (DQN, "goal"), (SAC, "image_dict")]
)
def test_of_dict_observations_the_key_is_dropped(algorithm, kind, tmp_path):
    options = ON_POLICY | {"batch_size": 20} if algorithm is PPO else OFF_POLICY
    model = train_dict(algorithm, echo(kind, box=algorithm is SAC), **options)
    task = EchoEnv(kind, box=algorithm is SAC)
    exported = export_skill(model, SKILL, env=task)
    assert "skill" not in exported.observation_space.spaces
    obs = sample_batch(exported.observation_space)
    one_hots = np.eye(K, dtype=np.float32)[np.full(200, SKILL)]
    expected, found = outputs(model, {**obs, "skill": one_hots}), outputs(exported, obs)
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= 1e-6 * max(1, np.abs(values).max()), name
    exported.save(tmp_path / "skill")
    loaded = algorithm.load(tmp_path / "skill", env=task, device="cpu")
    assert loaded.learn(50).num_timesteps == (80 if algorithm is PPO else 52)


@pytest.mark.slow
def test_normalized_dict_observations():
    venv = VecNormalize(DummyVecEnv([lambda: echo("goal")]), norm_reward=False)
    model = train_dict(SAC, venv, **OFF_POLICY)
    normalized = export_vec_normalize(venv, DummyVecEnv([lambda: EchoEnv("goal", box=True)]))
    exported = export_skill(model, SKILL, env=normalized)
    obs = sample_batch(normalized.observation_space)
    full = {**obs, "skill": np.eye(K, dtype=np.float32)[np.full(200, SKILL)]}
    expected = outputs(model, venv.normalize_obs(full))
    found = outputs(exported, normalized.normalize_obs(obs))
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= 1e-6 * max(1, np.abs(values).max()), name
    assert exported.learn(20).get_vec_normalize_env() is normalized


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["matrix", "discrete", "multi_binary", "image_first"])
def test_observations_that_the_wrapper_put_into_a_dict_are_refused(kind):
    model = train_dict(SAC, echo(kind), **OFF_POLICY)
    with pytest.raises(ValueError, match="in a way that cannot be folded; expected DIAYNWr"):
        export_skill(model, SKILL)


@pytest.mark.parametrize("kind", ["vector", "goal"])
def test_stacked_frames_are_refused(kind):
    if kind == "vector":
        model = train(SAC, False, OFF_POLICY, VecFrameStack(DummyVecEnv([counting]), 2))
    else:
        model = train_dict(SAC, VecFrameStack(DummyVecEnv([lambda: echo(kind)]), 2), **OFF_POLICY)
    with pytest.raises(ValueError, match="in a way that cannot be folded; expected DIAYNWr"):
        export_skill(model, SKILL)


# -- critics reset -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SAC", "TQC", "CrossQ", "TD3", "PPO", "TRPO", "RecurrentPPO"])
def test_reset_critics_keeps_the_policy_alone(name):
    model = trained(name)
    kept, reset = (export_skill(model, SKILL, reset_critics=flag) for flag in (False, True))
    expected, found = outputs(kept, observations()), outputs(reset, observations())
    assert np.array_equal(expected.pop("actions"), found.pop("actions"))
    expected.pop("distribution", None)
    for key, values in expected.items():
        assert np.abs(values - found[key]).max() > 1e-3
    if "critic_target" in found and name != "TQC":
        assert np.array_equal(found["critic"], found["critic_target"])


# -- refused -----------------------------------------------------------------------------------


class Mixing(FlattenExtractor):
    """Reads the skill before the first layer that could be folded."""

    def forward(self, observations):
        return super().forward(observations).flip(1).cumsum(1)


def test_a_model_without_skills_is_refused():
    with pytest.raises(ValueError, match="model=SAC has no discriminator; expected a model"):
        export_skill(make_sac(CountingEnv()), 0)


@pytest.mark.parametrize("skill", [-1, K, 1.0, True, "best"])
def test_a_skill_out_of_range_is_refused(skill):
    model = trained("SAC")
    with pytest.raises(ValueError, match=r"skill=.* is not one of the skills; expected an integer"):
        export_skill(model, skill)


def test_an_extractor_that_mixes_is_refused():
    kwargs = {"net_arch": [8], "features_extractor_class": Mixing}
    model = SAC("MlpPolicy", counting(), policy_kwargs=kwargs, device="cpu")
    model.learn(5, callback=make_callback())
    with pytest.raises(ValueError, match="features_extractor_class=Mixing mixes the skill"):
        export_skill(model, SKILL)


def test_a_first_layer_that_cannot_be_folded_is_refused():
    model = SAC("MlpPolicy", counting(), policy_kwargs={"net_arch": []}, use_sde=True, device="cpu")
    model.learn(5, callback=make_callback())
    with pytest.raises(ValueError, match=r"parameter 'actor.log_std' that depends on the skill"):
        export_skill(model, SKILL)


def test_a_policy_of_another_framework_is_refused(monkeypatch):
    """SBX, whose features extractors are not SB3's."""
    monkeypatch.setattr("sb3_diayn.downstream.export.BaseFeaturesExtractor", type("Other", (), {}))
    with pytest.raises(ValueError, match="policy=SACPolicy has no features extractor of SB3"):
        export_skill(trained("SAC"), SKILL)


@pytest.mark.parametrize("env", [PointEnv(), counting()])
def test_another_environment_is_refused(env):
    model = trained("SAC")
    with pytest.raises(ValueError, match=r"env has the observation space .*without DIAYNWrapper"):
        export_skill(model, SKILL, env=env)


def test_resetting_the_critic_that_is_the_policy_is_refused():
    model = make_dqn(counting(discrete=True)).learn(30, callback=make_callback())
    with pytest.raises(ValueError, match="reset_critics=True leaves nothing of DQN"):
        export_skill(model, SKILL, reset_critics=True)


# -- ranking -----------------------------------------------------------------------------------


def episode(skill: int, rewards: list[float], x: float = 0.0) -> Trajectory:
    states = np.full((len(rewards), 2), x, np.float32)
    return Trajectory(skill, states, np.zeros((len(rewards), 1)), np.array(rewards))


EPISODES = [episode(2, [1, 1], x=3), episode(0, [5]), episode(2, [6], x=3), episode(1, [4], x=9)]


def test_skills_are_ranked_by_their_mean_task_return():
    assert rank_skills(EPISODES) == [(0, 5.0), (1, 4.0), (2, 4.0)]
    assert best_skill(EPISODES) == 0


@pytest.mark.parametrize(
    "reward_function", [lambda t: t.states[:, 0], lambda t: float(t.states[-1, 0])]
)
def test_skills_are_ranked_by_a_reward_function(reward_function):
    assert best_skill(EPISODES, reward_function) == 1


def test_an_evaluation_is_ranked_by_its_task_returns():
    arrays = {field.name: np.zeros(3) for field in fields(SkillEvaluation)} | {"info": {}}
    returns = np.array([[1.0, 3.0], [5.0, 6.0], [9.0, -9.0]])
    evaluation = SkillEvaluation(**arrays | {"task_returns": returns})
    assert rank_skills(evaluation) == [(1, 5.5), (0, 2.0), (2, 0.0)]
    with pytest.raises(ValueError, match="cannot judge an evaluation, which keeps no states"):
        best_skill(evaluation, lambda t: 0.0)


@pytest.mark.parametrize("episodes", [[], [episode(0, [float("nan")])]])
def test_nothing_to_rank_is_refused(episodes):
    with pytest.raises(ValueError, match="rank no skills; expected at least one skill"):
        best_skill(episodes)
