"""Which skill an expert looks like."""

import sys

import numpy as np
import pytest

from sb3_diayn import Discriminator
from sb3_diayn.downstream.imitation import Demonstration, infer_skill, load_demonstration
from tests.helpers.envs import PointEnv
from tests.helpers.models import constant_discriminator
from tests.helpers.scripted import DIRECTIONS, K, compass


def walk(direction, steps=5):
    return np.cumsum(np.tile(DIRECTIONS[direction], (steps, 1)), axis=0)


@pytest.mark.parametrize("skill", range(K))
def test_a_walk_is_the_skill_of_its_direction(skill):
    found = infer_skill(compass(1.0), walk(skill))
    assert found.skill == skill and found.decided_at == 0
    assert found.posterior.shape == (K,) and found.posterior.argmax() == skill
    assert found.posterior.sum() == pytest.approx(1) and found.log_q.shape == (5, K)


def test_the_posterior_by_hand():
    """Three states of q = (0.7, 0.2, 0.1): the posterior is (343, 8, 1) / 352."""
    found = infer_skill(constant_discriminator([0.7, 0.2, 0.1]), np.zeros((3, 2)))
    np.testing.assert_allclose(found.posterior, np.array([343, 8, 1]) / 352, rtol=1e-5)
    np.testing.assert_allclose(found.mean_q, [0.7, 0.2, 0.1], rtol=1e-5)


def test_the_posterior_of_a_long_trajectory_does_not_overflow():
    found = infer_skill(compass(50.0), walk(2, 500))
    np.testing.assert_array_equal(found.posterior, [0, 0, 1, 0])


def test_when_it_was_decided():
    """Two steps north, then east: sums of x overtake sums of y at the seventh state."""
    path = np.concatenate([walk(1, 2), [[i, 2] for i in range(1, 8)]])
    found = infer_skill(compass(1.0), path)
    x, y = path.cumsum(axis=0).T
    assert found.skill == 0
    assert found.decided_at == int(np.flatnonzero(x <= y)[-1]) + 1 == 6


def test_a_discriminator_of_actions_reads_scaled_ones():
    env = PointEnv()
    discriminator = Discriminator(
        env.observation_space, K, net_arch=(), action_space=env.action_space
    )
    net = discriminator.net[-1]
    net.weight.data.zero_()
    net.bias.data.zero_()
    net.weight.data[:, 2:] = net.weight.data.new_tensor(DIRECTIONS)
    actions = np.tile(DIRECTIONS[3], (4, 1))
    assert infer_skill(discriminator, np.zeros((4, 2)), actions).skill == 3
    assert infer_skill(discriminator, Demonstration(np.zeros((4, 2)), actions)).skill == 3
    with pytest.raises(ValueError, match=r"actions=None do not fit 4 obs.*Pass the expert's acti"):
        infer_skill(discriminator, np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"actions of shape \(4, 3\) do not fit .*expected \(4, "):
        infer_skill(discriminator, np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"actions=4 of them do not fit 5 observations"):
        infer_skill(discriminator, np.zeros((5, 2)), actions)


@pytest.mark.parametrize(
    ("observations", "match"),
    [
        (np.zeros((5, 6)), r"observations of shape \(5, 6\) do not fit .*expected \(T, 2\)"),
        (np.zeros(2), r"observations of shape \(2,\) do not fit"),
        (np.zeros((0, 2)), r"observations of shape \(0, 2\) do not fit .*T of at least 1"),
        ([[0, 0], [0, np.nan]], r"observations\[1\] is not finite; expected finite numbers\. Cut"),
    ],
)
def test_observations_that_do_not_fit_are_refused(observations, match):
    with pytest.raises(ValueError, match=match):
        infer_skill(compass(), observations)


# -- files -----------------------------------------------------------------------------------


def test_arrays_are_read_from_files(tmp_path):
    states, actions = walk(1, 4), np.ones((4, 2))
    np.save(tmp_path / "states.npy", states)
    np.savez(tmp_path / "all.npz", observations=states, actions=actions, seed=7)
    plain = load_demonstration(tmp_path / "states.npy")
    np.testing.assert_array_equal(plain.observations, states)
    assert plain.actions is None and plain.seed is None
    full = load_demonstration(str(tmp_path / "all.npz"))
    np.testing.assert_array_equal(full.observations, states)
    np.testing.assert_array_equal(full.actions, actions)
    assert full.seed == 7


def test_the_observation_of_the_reset_is_left_out(tmp_path):
    states = walk(1, 5)
    np.savez(tmp_path / "all.npz", observations=states, actions=np.ones((4, 2)))
    np.testing.assert_array_equal(load_demonstration(tmp_path / "all.npz").observations, states[1:])


BAD_ARRAYS = {
    "text": ({"observations": np.array([["a", "b"]])}, "observations of shape .* expected real n"),
    "complex": ({"observations": np.zeros((4, 2), complex)}, "type complex128; expected real n"),
    "one number": ({"observations": np.float64(1)}, "expected an array 'observations'"),
    "text as actions": ({"actions": np.full(4, "left")}, "actions of shape .* expected real n"),
    "actions of NaN": ({"actions": np.full((4, 1), np.nan)}, r"actions\[0\] that is not finite"),
    "too few actions": (
        {"actions": np.zeros((2, 1))},
        "4 observations and 2 actions; expected",
    ),
    "one action": ({"actions": np.float64(1)}, "expected real numbers, one row for each step"),
    "seeds": ({"seed": [1, 2]}, r"seed=\[1, 2\]; expected one integer"),
    "a negative seed": ({"seed": -1}, "seed=-1; expected one integer of at least 0"),
    "a text as seed": ({"seed": "abc"}, "seed='abc'; expected one integer"),
    "half a seed": ({"seed": 0.5}, "seed=0.5; expected one integer"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_what_is_wrong_with_a_file_is_said_of_the_file(tmp_path, name):
    arrays, message = BAD_ARRAYS[name]
    np.savez(tmp_path / "bad.npz", **{"observations": walk(1, 4), **arrays})
    with pytest.raises(ValueError, match=rf"trajectory='.*bad.npz' has .*{message}"):
        load_demonstration(tmp_path / "bad.npz")


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK")
    np.savez(tmp_path / "other.npz", states=np.zeros((3, 2)))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(FileNotFoundError, match=r"trajectory='.*none\.npz' is not a file"):
        load_demonstration(tmp_path / "none.npz")
    for name in ("bad.npz", "objects.npy"):
        with pytest.raises(ValueError, match=rf"{name}' cannot be read .*expected numbers that np"):
            load_demonstration(tmp_path / name)
    (tmp_path / "expert.csv").write_text("0,1")
    with pytest.raises(ValueError, match=r"expert\.csv' is a file of another kind; expected \.npz"):
        load_demonstration(tmp_path / "expert.csv")
    with pytest.raises(ValueError, match=r"has \['states'\]; expected an array 'observations'.*np"):
        load_demonstration(tmp_path / "other.npz")


def test_minari_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ImportError, match=r"a Minari dataset\. .*install 'sb3-diayn\[minari"):
        load_demonstration("point/walker-v0")


def episode(seed: int):
    """Four steps to the right and up. Minari's own collector of episodes would need JAX."""
    env, action = PointEnv(length=4), np.array([0.5, 1.0], np.float32)
    steps = [env.reset(seed=seed), *(env.step(action) for _ in range(4))]
    observations = np.stack([step[0] for step in steps])
    rewards, terminations, truncations = zip(*(step[1:4] for step in steps[1:]), strict=True)
    return pytest.importorskip("minari.data_collector").EpisodeBuffer(
        seed=seed,
        observations=observations,
        actions=np.stack([action] * 4),
        rewards=list(rewards),
        terminations=list(terminations),
        truncations=list(truncations),
    )


@pytest.fixture(scope="module")
def minari_dataset(tmp_path_factory):
    """Two episodes in a dataset of this machine."""
    minari = pytest.importorskip("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        minari.create_dataset_from_buffers(
            dataset_id="point/walker-v0",
            buffer=[episode(seed) for seed in (11, 12)],
            env="sb3_diayn_tests/PointEnv-v0",
            algorithm_name="by hand",
            code_permalink="none",
            author="none",
            author_email="none",
        )
        yield "point/walker-v0"


@pytest.mark.filterwarnings("ignore")
def test_a_minari_dataset_is_read(minari_dataset):
    first, second = (load_demonstration(minari_dataset, episode=i) for i in range(2))
    assert first.observations.shape == (4, 2) and first.actions.shape == (4, 2)
    np.testing.assert_allclose(np.diff(first.observations, axis=0), [[0.5, 1.0]] * 3, atol=1e-6)
    assert (first.seed, second.seed) == (11, 12)
    assert (first.observations != second.observations).any()
    with pytest.raises(ValueError, match=r"episode=2 is not in 'point/walker-v0'; expected 0 to 1"):
        load_demonstration(minari_dataset, episode=2)
    with pytest.raises(FileNotFoundError, match=r"'point/runner-v0' is not a Minari .*minari down"):
        load_demonstration("point/runner-v0")
