import base64
import copy
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import is_image_space

from sb3_diayn import Discriminator, load_discriminator
from sb3_diayn.model_zip import (
    LiveState,
    build_discriminator,
    load_state,
    pack_arrays,
    pack_state,
    unpack_arrays,
)
from sb3_diayn.observations import describe_space, rebuild_space
from sb3_diayn.trainer import DiscriminatorTrainer
from tests.helpers.models import K, counting, make_callback, make_dqn, make_sac

WITHOUT_PACKAGE = """
import json, sys
sys.modules["sb3_diayn"] = None  # any import of it now raises ModuleNotFoundError
try:
    import sb3_diayn.buffers
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the package must not be there")
from stable_baselines3 import SAC
import numpy as np
model = SAC.load(sys.argv[1], device="cpu")
observations = np.array(json.loads(sys.argv[3]), np.float32)
print(json.dumps(model.predict(observations, deterministic=True)[0].tolist()))
model.save(sys.argv[2])
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model after 100 steps, its callback and the zip that ``model.save`` wrote."""
    path = tmp_path_factory.mktemp("trained") / "model.zip"
    callback = make_callback(normalize_obs=True, obs_indices=[0, -1], learn_p_z=True)
    model = make_sac(counting(skill="uniform"), train_freq=4)
    model.learn(100, callback=callback)
    model.save(path)
    return model, callback, path


def rewards(discriminator: Discriminator) -> th.Tensor:
    obs = th.linspace(-3, 8, 60).reshape(30, 2)
    return discriminator.reward(obs, th.arange(30) % K)


def edit_data(source: Path, target: Path, edit) -> Path:
    """Copy a model's zip and change its JSON."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                data = json.loads(content)
                edit(data)
                content = json.dumps(data).encode()
            new.writestr(name, content)
    return target


def test_the_loaded_discriminator_pays_the_same_to_the_bit(trained):
    _, callback, path = trained
    loaded = load_discriminator(path)
    assert callback.trainer.n_updates > 0
    assert th.equal(rewards(loaded), rewards(callback.discriminator))
    mine, theirs = callback.discriminator.state_dict(), loaded.state_dict()
    assert mine.keys() == theirs.keys() and all(th.equal(mine[k], theirs[k]) for k in mine)


def test_the_ending_may_be_left_out(trained):
    path = trained[2]
    assert th.equal(
        rewards(load_discriminator(path.with_suffix(""))), rewards(load_discriminator(str(path)))
    )


@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.Box(-2.0, 2.0, (1,))])
def test_a_discriminator_that_reads_actions_comes_back(tmp_path, space):
    discrete = isinstance(space, spaces.Discrete)
    make = make_dqn if discrete else make_sac
    model, callback = make(counting(discrete=discrete)), make_callback(use_actions=True)
    model.learn(30, callback=callback)
    model.save(tmp_path / "model")
    loaded = load_discriminator(tmp_path / "model")
    assert loaded.action_space == model.action_space
    obs, actions = th.randn(6, 2), th.tensor([[0.0], [1.0], [2.0]] * 2)
    skills = th.arange(6) % K
    expected = callback.discriminator.reward(obs, skills, actions)
    assert th.equal(loaded.reward(obs, skills, actions), expected)


@pytest.mark.slow
def test_a_process_without_this_package_plays_and_saves_the_model(trained, tmp_path):
    model, callback, path = trained
    observations = np.random.default_rng(0).normal(0, 2, (5, 2 + K)).astype(np.float32)
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT_PACKAGE,
            path,
            tmp_path / "again.zip",
            json.dumps(observations.tolist()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    actions = model.predict(observations, deterministic=True)[0]
    np.testing.assert_array_equal(np.array(json.loads(run.stdout), np.float32), actions)
    # push_to_hub re-saves a loaded model in this way.
    loaded = load_discriminator(tmp_path / "again.zip")
    assert th.equal(rewards(loaded), rewards(callback.discriminator))
    assert load_state(tmp_path / "again.zip") == load_state(path)


@pytest.mark.slow
def test_a_stock_load_brings_the_state_back_as_a_plain_dict(trained):
    model, _, path = trained
    loaded = SAC.load(path, device="cpu")
    assert type(loaded.diayn_state) is dict
    assert loaded.diayn_state == dict(model.diayn_state.items()) == load_state(path)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_pickle_of_the_zip_is_opened(trained, tmp_path):
    """Every pickled member of the JSON, and the zip's other files, are code that leaves a mark."""
    mark = tmp_path / "mark"
    pickled = pickle.dumps(Malicious(mark))
    pickle.loads(pickled)
    mark.rmdir()  # it would have worked

    n_replaced = 0

    def poison(data):
        nonlocal n_replaced
        for value in data.values():
            if isinstance(value, dict) and ":serialized:" in value:
                value[":serialized:"] = base64.b64encode(pickled).decode()
                n_replaced += 1
        data["another"] = {":type:": "x", ":serialized:": base64.b64encode(pickled).decode()}

    path = edit_data(trained[2], tmp_path / "poisoned.zip", poison)
    with zipfile.ZipFile(path) as archive:
        others = {name: pickled for name in archive.namelist() if name != "data"}
        data = archive.read("data")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in ({"data": data} | others).items():
            archive.writestr(name, content)
    assert n_replaced > 3 and len(others) > 2
    loaded = load_discriminator(path)
    assert not mark.exists()
    assert th.equal(rewards(loaded), rewards(trained[1].discriminator))


def test_a_pickle_in_the_place_of_the_arrays_is_not_opened(trained, tmp_path):
    mark = tmp_path / "mark"

    def poison(data):
        text = base64.b64encode(pickle.dumps(Malicious(mark))).decode()
        data["diayn_state"]["arrays"] = text

    path = edit_data(trained[2], tmp_path / "poisoned.zip", poison)
    with pytest.raises(ValueError, match="damaged discriminator"):
        load_discriminator(path)
    assert not mark.exists()


@pytest.mark.slow
def test_checkpoints_and_the_best_model_carry_it(tmp_path):
    eval_env = make_vec_env(counting, 1)
    callback = make_callback()
    best = EvalCallback(
        eval_env, best_model_save_path=str(tmp_path), eval_freq=60, n_eval_episodes=1, verbose=0
    )
    checkpoints = CheckpointCallback(save_freq=40, save_path=str(tmp_path), name_prefix="model")
    model = make_sac(make_vec_env(counting, 1))
    model.learn(80, callback=[callback, checkpoints, best])
    n_updates = {
        name: load_state(tmp_path / name)["counters"]["n_updates"]
        for name in ("model_40_steps", "best_model", "model_80_steps")
    }
    # learning_starts=20, then one update a step; a callback comes before the step's update.
    assert n_updates == {"model_40_steps": 19, "best_model": 39, "model_80_steps": 59}
    assert callback.trainer.n_updates == 60
    for name in n_updates:
        assert load_discriminator(tmp_path / name).n_skills == K
    assert not th.equal(
        rewards(load_discriminator(tmp_path / "model_40_steps")),
        rewards(load_discriminator(tmp_path / "model_80_steps")),
    )


def test_a_live_state_is_a_plain_dict_to_json_and_pickle():
    class Owner:
        count = 0

        def state(self):
            self.count += 1
            return {"format_version": 1, "count": self.count}

    live = LiveState(Owner())
    assert json.loads(json.dumps(live)) == {"format_version": 1, "count": 1}
    assert json.loads(json.dumps(live, indent=4)) == {"format_version": 1, "count": 2}
    pickled = pickle.dumps(live)
    assert b"sb3_diayn" not in pickled
    back = pickle.loads(pickled)
    assert type(back) is dict and back == {"format_version": 1, "count": 3}


def test_arrays_survive_as_text():
    arrays = {
        "a": np.array([0.1, np.inf, np.nan], np.float32),
        "b.c": np.arange(4).reshape(2, 2),
        "scalar": np.array(1e-45, np.float32),
    }
    text = pack_arrays(arrays)
    assert text.isascii()
    back = unpack_arrays(text)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


@pytest.mark.parametrize(
    "space",
    [
        None,
        spaces.Discrete(4),
        spaces.Box(-2.0, 0.1, (3,), np.float32),
        spaces.Box(np.array([-np.inf, 0]), np.array([1, np.inf]), dtype=np.float64),
    ],
)
def test_spaces_survive_as_json(space):
    description = json.loads(json.dumps(describe_space(space)))
    assert rebuild_space(description) == space


def test_an_image_survives_and_takes_no_memory():
    space = spaces.Box(0, 255, (3, 40, 50), np.uint8)
    rebuilt = rebuild_space(json.loads(json.dumps(describe_space(space))))
    for image in (rebuilt, copy.deepcopy(rebuilt), pickle.loads(pickle.dumps(rebuilt))):
        assert image == space and space == image and repr(image) == repr(space)
        assert is_image_space(image) and space.contains(image.sample())
    assert len(np.unique(rebuilt.sample())) == 256
    assert rebuilt.low.base.nbytes == 1


@pytest.mark.slow
def test_a_discriminator_of_images_comes_back():
    """It reads a map; the camera with two million pixels it does not."""
    shapes = {"camera": (3, 1080, 1920), "map": (1, 40, 40)}
    space = spaces.Dict({key: spaces.Box(0, 255, shapes[key], np.uint8) for key in shapes})
    options = {"obs_indices": "map", "net_arch": [4]}
    trainer = DiscriminatorTrainer(Discriminator(space, K, **options), 1e-3, 0)
    state = {"n_skills": K, "options": options, "action_space": None, **trainer.state()}
    state["observation_space"] = describe_space(space)
    loaded = build_discriminator(json.loads(json.dumps(pack_state(state))))
    assert loaded.observation_space == space
    obs = {key: th.randint(256, (2, *shapes[key]), dtype=th.uint8) for key in shapes}
    assert th.equal(loaded(obs), trainer.discriminator(obs))


# -- damage ------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"path='.*nothing' is not a file; expected a model"
    ):
        load_discriminator(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 but not really"])
def test_a_file_that_is_no_zip(tmp_path, content):
    (tmp_path / "model.zip").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"cannot be read .*the zip that model.save\(\) writes.*another"
    ):
        load_discriminator(tmp_path / "model.zip")


def test_a_directory_is_not_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file"):
        load_discriminator(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_file(trained, tmp_path, share):
    content = trained[2].read_bytes()
    (tmp_path / "model.zip").write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        ValueError, match=r"cannot be read .*the zip that model.save\(\) writes.*another"
    ):
        load_discriminator(tmp_path / "model.zip")


def assert_refused_or_the_same(path, discriminator):
    try:
        loaded = load_discriminator(path)
    except ValueError as error:
        assert "expected" in str(error)
    else:
        assert th.equal(rewards(loaded), rewards(discriminator))


@pytest.mark.slow
@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_does_not_matter(trained, tmp_path_factory, position, value):
    content = bytearray(trained[2].read_bytes())
    content[int(position * len(content))] ^= value
    path = tmp_path_factory.getbasetemp() / "changed.zip"
    path.write_bytes(content)
    assert_refused_or_the_same(path, trained[1].discriminator)


@pytest.mark.slow
def test_a_changed_bit_in_the_directory_of_the_zip(trained, tmp_path):
    """The bits that say how "data" is stored: its version, encryption, compression, size, place."""
    content, path = trained[2].read_bytes(), tmp_path / "changed.zip"
    start = int.from_bytes(content[-6:-2], "little")  # a zip ends with the place of its directory
    assert content[start + 46 : start + 50] == b"data"
    for bit in range(8 * 50):
        changed = bytearray(content)
        changed[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert_refused_or_the_same(path, trained[1].discriminator)


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(ValueError, match=r"cannot be read .*no item named"):
        load_discriminator(tmp_path / "model.zip")


def test_a_model_without_skills(tmp_path):
    make_sac(counting()).save(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"holds no discriminator; .*callback=DIAYNCallback\(\)"):
        load_discriminator(tmp_path / "plain")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version(trained, tmp_path, version):
    def change(data):
        data["diayn_state"]["format_version"] = version

    path = edit_data(trained[2], tmp_path / "model.zip", change)
    with pytest.raises(ValueError, match=r"format_version=.*expected 1\. Install the version of"):
        load_discriminator(path)


EMPTY_NPZ = base64.b64encode(b"PK\x05\x06" + bytes(18)).decode()
NPY = base64.b64encode(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False}").decode()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("arrays", ""),
        ("arrays", "not base64!"),
        ("arrays", "bm90IGFuIG5weg=="),
        ("arrays", EMPTY_NPZ),
        ("arrays", NPY),
        ("arrays", 5),
        ("arrays", None),
        ("options", None),
        ("options", {}),
        ("n_skills", 4),
        ("n_skills", "three"),
        ("observation_space", None),
        ("observation_space", {}),
        ("observation_space", {"type": "Discrete", "n": 3}),
        ("observation_space", {"type": "Box", "dtype": "float32", "low": [0], "high": [1]}),
        ("action_space", 3),
    ],
)
def test_a_damaged_state(trained, tmp_path, key, value):
    def damage(data):
        data["diayn_state"][key] = value

    path = edit_data(trained[2], tmp_path / "model.zip", damage)
    with pytest.raises(ValueError, match=r"(?s)holds a damaged discriminator .*Use another"):
        load_discriminator(path)


@pytest.mark.parametrize("n_kept", [0, 50, 1000, -7])
def test_a_truncated_text_of_arrays(trained, tmp_path, n_kept):
    def damage(data):
        state = data["diayn_state"]
        state["arrays"] = state["arrays"][:n_kept]

    path = edit_data(trained[2], tmp_path / "model.zip", damage)
    with pytest.raises(ValueError, match="holds a damaged discriminator"):
        load_discriminator(path)
