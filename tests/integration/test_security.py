"""A zip from a stranger: its state is read without running code, and without taking the machine."""

import base64
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch as th
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sb3_diayn import load_discriminator
from sb3_diayn.model_zip import load_state, pack_arrays, training_history, unpack_arrays
from tests.helpers.hostile import HostileFiles
from tests.helpers.models import counting, make_callback, make_sac
from tests.test_model_zip import edit_data

# One zip is written over and over, and a file that is read needs no fresh folder.
many = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEYS = (
    "algo",
    "env_id",
    "n_skills",
    "observation_space",
    "action_space",
    "options",
    "counters",
    "random_state",
    "arrays",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model's zip, small enough to be broken a thousand times."""
    path = tmp_path_factory.mktemp("saved") / "model.zip"
    model = make_sac(counting())
    model.learn(25, callback=make_callback(net_arch=[4], obs_indices=[0], use_actions=True))
    model.save(path)
    load_discriminator(path)
    return path


class Malicious:
    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def read_all(path):
    """Whatever reads the state of a zip, and nothing but our two errors."""
    for read in (load_discriminator, lambda path: training_history(load_state(path))):
        try:
            read(path)
        except (ValueError, FileNotFoundError) as error:
            assert "expected" in str(error)


def change(saved, tmp_path, edit):
    return edit_data(saved, tmp_path / "model.zip", lambda data: edit(data["diayn_state"]))


# -- no code is run --------------------------------------------------------------------------


def serialized(payload: bytes):
    return {":type:": "<class 'dict'>", ":serialized:": base64.b64encode(payload).decode()}


@pytest.mark.parametrize("key", [None, *KEYS])
def test_a_pickle_in_the_place_of_any_value(saved, tmp_path, key):
    mark = tmp_path / "mark"
    poison = serialized(pickle.dumps(Malicious(mark)))

    def edit(data):
        if key is None:  # as SB3 would store a state that is no JSON
            data["diayn_state"] = {**poison, "format_version": 1}
        else:
            data["diayn_state"][key] = poison

    path = edit_data(saved, tmp_path / "model.zip", edit)
    read_all(path)
    if key not in ("counters", "random_state"):  # those are read by a training that resumes
        with pytest.raises(ValueError, match="damaged discriminator"):
            load_discriminator(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["discriminator.net.0.weight", "history", "another"])
def test_an_array_of_objects(saved, tmp_path, name):
    mark = tmp_path / "mark"

    def edit(state):
        arrays = unpack_arrays(state["arrays"])
        objects = np.empty(arrays.get(name, np.zeros(2)).shape, object)
        objects.flat[0] = Malicious(mark)
        buffer = io.BytesIO()
        np.savez(buffer, **(arrays | {name: objects}))
        state["arrays"] = base64.b64encode(buffer.getvalue()).decode()
        with np.load(io.BytesIO(buffer.getvalue()), allow_pickle=True) as archive:
            assert archive[name] is not None
        mark.rmdir()  # it would have worked

    path = change(saved, tmp_path, edit)
    read_all(path)
    with pytest.raises(ValueError, match=r"damaged .*Object arrays cannot be loaded"):
        load_discriminator(path)
    assert not mark.exists()


# -- no machine is taken ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and other systems limit less")
def test_a_small_file_takes_little_memory_and_time(saved, tmp_path):
    """200 MB more than the imports, and 5 s, see ``tests/helpers/bounded_load.py``."""
    HostileFiles(saved, tmp_path / "hostile")
    files = sorted((tmp_path / "hostile").iterdir())
    assert max(file.stat().st_size for file in files) <= 1_000_000
    words = [sys.executable, "-m", "tests.helpers.bounded_load", saved, *files]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["file"] for result in results] == [file.stem for file in files]
    for result in results:
        assert "expected" in result["error"], result
        assert set(result["causes"]) & {"MemoryError", "ArrayMemoryError"} == set(), result


# -- whatever happens to a file --------------------------------------------------------------


@pytest.mark.slow
@many
@given(st.floats(0, 1, exclude_max=True))
def test_truncated_anywhere(saved, tmp_path, share):
    content, path = saved.read_bytes(), tmp_path / "model.zip"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="cannot be read"):
        load_discriminator(path)


@pytest.mark.slow
@many
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1))
def test_changed_bytes_anywhere(saved, tmp_path, changes):
    content, path = bytearray(saved.read_bytes()), tmp_path / "model.zip"
    for place, mask in changes:
        content[int(place * len(content))] ^= mask
    path.write_bytes(content)
    read_all(path)


@pytest.mark.slow
@many
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1))
def test_changed_bytes_of_the_arrays(saved, tmp_path, changes):
    """Where no checksum of the outer zip protects them."""

    def edit(state):
        content = bytearray(base64.b64decode(state["arrays"]))
        for place, mask in changes:
            content[int(place * len(content))] ^= mask
        state["arrays"] = base64.b64encode(content).decode()

    read_all(change(saved, tmp_path, edit))


numbers = st.integers() | st.floats() | st.sampled_from([2, 3, 10**9, 10**400, 2**63, -1])
scalars = st.none() | st.booleans() | numbers | st.text(max_size=5)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def places(state, path=()):
    """Every place of the state, from the outermost to each number of a list."""
    for key, value in state.items() if isinstance(state, dict) else enumerate(state):
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # gymnasium's, about bounds
@many
@given(st.data())
def test_any_value_in_any_place_of_the_state(saved, tmp_path, data):
    state = load_state(saved)
    *outer, key = data.draw(st.sampled_from(sorted(places(state), key=str)))

    def edit(state):
        for name in outer:
            state = state[name]
        state[key] = data.draw(anything)

    read_all(change(saved, tmp_path, edit))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "NaN",
        "9" * 10_000,
        '{"diayn_state": 5}',
        '{"diayn_state": {}}',
        '{"diayn_state": {"format_version": NaN}}',
        '{"diayn_state": {"format_version": 1}}',
        "\ud800".encode("utf-16", "surrogatepass"),
        "",
    ],
    ids=range(10),
)
def test_json_of_any_form(tmp_path, text):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("data", text)
    with pytest.raises(ValueError, match="expected"):
        load_discriminator(tmp_path / "model.zip")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite(saved, tmp_path, value):
    def edit(state):
        arrays = unpack_arrays(state["arrays"])
        arrays["discriminator.net.0.weight"][0, 0] = value
        state["arrays"] = pack_arrays(arrays)

    with pytest.raises(ValueError, match=r"damaged .*net\.0\.weight is not finite.*another check"):
        load_discriminator(change(saved, tmp_path, edit))


def test_the_json_of_the_state_is_plain(saved):
    """No ``:serialized:`` anywhere in it: SB3 would unpickle that."""
    with zipfile.ZipFile(saved) as archive:
        state = json.loads(archive.read("data"))["diayn_state"]
    assert ":serialized:" not in json.dumps(state)
    assert th.equal(*(load_discriminator(saved).net[0].weight for _ in range(2)))
