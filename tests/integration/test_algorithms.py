"""Each row of the table of what is supported: see ``tests/helpers/algorithms.py``."""

import importlib

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import SubprocVecEnv

from docs.tables.algorithms import PAGE, with_tables
from sb3_diayn import DIAYNCallback, DIAYNWrapper, load_discriminator
from sb3_diayn.cli import main
from sb3_diayn.evaluation.trajectories import play_skills
from tests.helpers.algorithms import GAPS, ROWS, VARIANTS, K
from tests.helpers.envs import EchoEnv
from tests.helpers.models import make_callback

# SB3 says so when a zip of a model with n_steps is loaded, whose buffer class it has set itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*is ignored because a custom .replay_buffer_class")

CASES = [
    pytest.param(
        row,
        VARIANTS.get(variant, {}),
        id=" ".join(filter(None, [str(row), variant])),
        marks=[pytest.mark.sbx] if row.is_sbx else [],
    )
    for row in ROWS
    for variant in ("", *row.variants)
]


def learned(row, env, total_timesteps=200, **options):
    model = row.make_model(env, **options)
    # Off-policy, a slow discriminator lets the policy follow what it happens to believe at first.
    rate = 2e-3 if isinstance(model, OffPolicyAlgorithm) or "n_epochs" in row.options else 1e-2
    callback = make_callback(net_arch=[32], learning_rate=rate)
    model.learn(total_timesteps, callback=callback)
    return model, callback


def fresh_accuracy(model, env, discriminator) -> float:
    """The share of states of new, deterministic episodes whose skill is recognised."""
    hits = []
    for episode in play_skills(model, env, range(K), seed=0):
        with th.no_grad():
            guesses = discriminator(th.as_tensor(episode.states)).argmax(dim=1).numpy()
        hits += list(guesses == episode.skill)
    return float(np.mean(hits))


@pytest.fixture(scope="session")
def compiled_once(tmp_path_factory):
    """Compiling is most of what SBX does here: what JAX keeps on disk serves loaded models too."""
    pytest.importorskip("sbx")
    jax = pytest.importorskip("jax")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.mark.slow
@pytest.mark.parametrize(("row", "options"), CASES)
def test_learns_saves_loads_and_goes_on(row, options, tmp_path, request):
    if row.is_sbx:
        request.getfixturevalue("compiled_once")
    env = make_vec_env(row.make_env, 2)
    model, callback = learned(row, env, **options)
    assert model.num_timesteps == 200
    assert fresh_accuracy(model, env, callback.discriminator) >= 0.9  # by chance 0.5

    model.save(tmp_path / "model")
    loaded = row.algorithm.load(tmp_path / "model", env=make_vec_env(row.make_env, 2), device="cpu")
    obs = env.reset()
    np.testing.assert_array_equal(
        loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0]
    )
    saved = load_discriminator(tmp_path / "model")
    for name, value in callback.discriminator.state_dict().items():
        assert th.equal(saved.state_dict()[name], value)

    if isinstance(model, OffPolicyAlgorithm):
        model.save_replay_buffer(tmp_path / "buffer")
        loaded.load_replay_buffer(tmp_path / "buffer")
    again = DIAYNCallback()
    loaded.learn(80, callback=again)
    assert again.options == callback.options
    assert again.trainer.n_updates > callback.trainer.n_updates
    assert len(again.trainer.history) > len(callback.trainer.history)


class CountThreads(BaseCallback):
    def _on_step(self) -> bool:
        self.n_threads = th.get_num_threads()
        return True


@pytest.mark.parametrize(
    ("path", "chosen", "expected"),
    [
        ("stable_baselines3.SAC", None, 2),
        pytest.param("sbx.SAC", None, 1, marks=pytest.mark.sbx),
        pytest.param("sbx.SAC", "2", 2, marks=pytest.mark.sbx),
    ],
)
def test_beside_sbx_pytorch_has_one_thread(path, chosen, expected, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    row = next(row for row in ROWS if row.path == path)
    if row.is_sbx:
        pytest.importorskip("sbx")
    threads = CountThreads()
    before = th.get_num_threads()
    th.set_num_threads(2)
    try:
        row.make_model(make_vec_env(row.make_env, 1)).learn(2, [DIAYNCallback(), threads])
        assert (threads.n_threads, th.get_num_threads()) == (expected, 2)
    finally:
        th.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("actions", ["Box", "Discrete"])
def test_every_row_runs_in_other_processes(actions):
    rows = [row for row in ROWS if row.actions == actions and not row.is_sbx]
    env = make_vec_env(rows[0].make_env, 2, vec_env_cls=SubprocVecEnv)
    try:
        for row in rows:
            model, callback = learned(row, env, total_timesteps=80)
            assert callback.trainer.n_updates > 0, row
            assert model.num_timesteps == 80, row
    finally:
        env.close()


def test_masks_are_kept_when_skills_are_played():
    (row,) = (row for row in ROWS if row.path.endswith("MaskablePPO"))
    env = make_vec_env(row.make_env, 2)
    episodes = play_skills(row.make_model(env), env, [0, 1] * 5, deterministic=False, seed=0)
    actions = np.stack([episode.actions for episode in episodes])
    assert actions.shape == (10, 10)
    assert 2 in actions[:, ::2] and 2 not in actions[:, 1::2]  # masked after every odd step


GAP_CASES = [(gap, kind) for gap in GAPS for kind in gap.kinds]


def gap_env(gap, kind):
    """An environment with skills, for a model that cannot be made."""
    is_box = not any(name in gap.path for name in ("DQN", "PPO"))
    return DIAYNWrapper(EchoEnv(kind, box=is_box), K)


@pytest.mark.parametrize(
    ("gap", "kind"), GAP_CASES, ids=[f"{gap.path} {kind}" for gap, kind in GAP_CASES]
)
def test_the_library_still_has_this_gap(gap, kind):
    """If not, the row goes, and with it the refusal of the commands."""
    module, name = gap.path.partition("(")[0].rsplit(".", 1)
    algorithm = getattr(importlib.import_module(module), name)
    options = {"policy_kwargs": {"features_extractor_kwargs": {"cnn_output_dim": 8}}}
    with pytest.raises((ValueError, TypeError, AssertionError), match=gap.error):
        algorithm(gap.policy, gap_env(gap, kind), device="cpu", **options, **gap.options)


@pytest.fixture
def echo():
    """Id of ``EchoEnv``, for the commands."""
    gym.register("sb3_diayn_tests/Echo-v0", EchoEnv, max_episode_steps=5)
    yield "sb3_diayn_tests/Echo-v0"
    del gym.registry["sb3_diayn_tests/Echo-v0"]


def command(name, algo, env_id, kind, folder, entry):
    """The words of a command for a file with this entry."""
    wrapper = {"sb3_diayn.DIAYNWrapper": {"n_skills": 2}}
    entry = {"n_timesteps": 32, "env_wrapper": [wrapper], **entry}
    entry |= {"callback": [{"sb3_diayn.DIAYNCallback": {"net_arch": [4]}}], "n_envs": 1}
    (folder / f"{algo}.yml").write_text(yaml.safe_dump({env_id: entry}))
    words = [name, "--env", env_id, "--algo", algo, "--conf-file", str(folder / f"{algo}.yml")]
    words += ["--env-kwargs", f"kind:{kind}", f"box:{algo in ('crossq', 'sac')}"]
    return [*words, "-f", str(folder / "logs"), "--device", "cpu"]


@pytest.mark.parametrize(
    ("name", "algo", "kind", "entry", "message"),
    [
        ("train", "crossq", "discrete", {}, "CrossQ has no MultiInputPolicy"),
        ("train", "crossq", "image", {}, "CrossQ has no MultiInputPolicy"),
        ("train", "sac", "discrete", {"n_steps": 3}, "n-step returns for vectors only"),
        ("tune", "sac", "dict", {"n_steps": 3}, "n-step returns for vectors only"),
        ("train", "ppo_lstm", "multi_discrete", {}, "cannot read a MultiDiscrete"),
        ("tune", "ppo_lstm", "multi_discrete", {}, "cannot read a MultiDiscrete"),
    ],
)
def test_commands_refuse_a_gap_in_a_sentence(
    name, algo, kind, entry, message, echo, tmp_path, capsys
):
    policy = "MultiInputLstmPolicy" if algo == "ppo_lstm" else "MultiInputPolicy"
    assert main(command(name, algo, echo, kind, tmp_path, {"policy": policy, **entry})) == 2
    error = capsys.readouterr().err
    assert message in error and "expected observations that it can read" in error
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "entry"),
    [
        ("crossq", {"policy": "MlpPolicy", "learning_starts": 8, "buffer_size": 100}),
        ("ppo_lstm", {"policy": "MlpLstmPolicy", "n_steps": 16, "batch_size": 16}),
    ],
)
def test_flattened_observations_close_a_gap(algo, entry, echo, tmp_path, capsys):
    wrappers = [
        "gymnasium.wrappers.FlattenObservation",
        {"sb3_diayn.DIAYNWrapper": {"n_skills": 2}},
    ]
    words = command(
        "train", algo, echo, "multi_discrete", tmp_path, entry | {"env_wrapper": wrappers}
    )
    assert main([*words, "--no-report", "--no-progress", "--episodes", "1"]) == 0


@pytest.mark.slow
def test_a_recurrent_policy_reads_every_other_dict(echo, tmp_path, capsys):
    entry = {"policy": "MultiInputLstmPolicy", "n_steps": 16, "batch_size": 16}
    words = command("train", "ppo_lstm", echo, "goal", tmp_path, entry)
    assert main([*words, "--no-report", "--no-progress", "--episodes", "1"]) == 0


def test_the_page_shows_this_table():
    assert PAGE.read_text(encoding="utf-8") == with_tables(), "run python -m docs.tables.algorithms"


@pytest.mark.parametrize("name", ["discrete_actions", "sbx_sac"])
def test_the_page_shows_the_examples(name):
    example = (PAGE.parents[2] / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert example in PAGE.read_text(encoding="utf-8")
