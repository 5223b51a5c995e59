"""
The discriminator inside a stock SB3 zip.

SB3 writes each attribute of a model as JSON where it can and pickles it where it cannot. The state
of a discriminator is kept as a dict that JSON can hold (arrays as one base64 text of NumPy's own
``.npz`` format), so it needs no class of this package to load, survives being saved again by a
process that has never heard of it, and is read back without unpickling anything.
"""

import base64
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, ItemsView, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_diayn.arguments import arguments_for, check_options
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.files import brief, reading
from sb3_diayn.observations import rebuild_space
from sb3_diayn.representation import objective_class
from sb3_diayn.trainer import HISTORY, Arrays, State, group_arrays
from sb3_diayn.user_code import NO_CODE, ExtractorClass, ObsFunction, UserCode

STATE_ATTRIBUTE = "diayn_state"
TRAINING = "training"  # within it, from a loaded checkpoint until the next rollout: the rest
STATE_FORMAT = 1
STATE_TYPES: dict[str, Any] = {
    "algo": str,
    "n_skills": int,
    "env_id": (str, type(None)),
    "options": dict,
    "arrays": str,
}

# What is read of a file. SB3 does not compress; where somebody has, base64 shrinks by a quarter.
MAX_DATA_BYTES = 2**30  # a discriminator of 60 million parameters
MAX_RATIO, SMALL_BYTES = 4, 2**22  # an unpacked text is at most 4 times its file, or small
MAX_NODES = 2**22  # each takes up to 100 bytes when JSON is read
MAX_ARRAYS, MAX_LAYERS = 2**12, 2**8
SPECTRAL = "parametrizations.weight.original"  # a weight with spectral_norm, by PyTorch's name


class LiveState(dict[str, Any]):
    """
    A dict that is computed afresh whenever it is written, so that every ``model.save``, whoever
    calls it, stores the discriminator of that moment. To JSON and to pickle it is a plain dict.

    :param owner: the ``DIAYNCallback`` that trains the model; its ``state`` computes the state
    :param code: what the discriminator reads through, of which a state has only the names
    """

    def __init__(self, owner: Any, code: UserCode = NO_CODE) -> None:
        super().__init__(format_version=STATE_FORMAT)  # json takes an empty dict at its word
        self.owner, self.code = owner, code
        self.snapshot: Callable[[], State] = owner.state
        self._seen: tuple[Any, ...] = (None, None)

    def see(self, model: BaseAlgorithm, obs: Any) -> None:
        """
        :param model: the model
        :param obs: what its environments have just returned
        """
        self._seen = _objects(model, obs)

    def is_present(self, model: BaseAlgorithm) -> bool:
        """
        :param model: the model
        :return: whether it still sees what it saw last: nobody has used its environments since
        """
        now = _objects(model, model._last_obs)
        return now[0] is not None and all(a is b for a, b in zip(now, self._seen, strict=True))

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """:return: the items of the state of this moment"""
        return self.snapshot().items()

    def freeze(self) -> None:
        """Keep the state of this moment, whatever is written later."""
        state = self.snapshot()
        self.snapshot = lambda: state

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[State]]:
        return dict, (self.snapshot(),)


def _objects(model: BaseAlgorithm, obs: Any) -> tuple[Any, ...]:
    """These observations, and the raw ones of ``VecNormalize``: objects of one moment."""
    normalizer = model.get_vec_normalize_env()
    return obs, None if normalizer is None else normalizer.old_obs


def build_discriminator(state: State, code: UserCode = NO_CODE) -> Discriminator:
    """
    :param state: the state of a run, as ``DIAYNCallback.state`` makes it
    :param code: what the discriminator reads through, if it was trained with such
    :return: its discriminator, on the CPU
    :raises ValueError: if ``code`` is not what the training had
    """
    code.check(state["options"])
    kind = objective_class(state["options"])
    options = check_options(Discriminator, arguments_for(kind, state["options"]))
    options |= code._asdict()
    build = partial(
        kind,
        rebuild_space(state["observation_space"]),  # type: ignore[arg-type]
        state["n_skills"],
        action_space=rebuild_space(state["action_space"]),
        **options,
    )
    arrays = group_arrays(unpack_arrays(state["arrays"]))["discriminator"]
    _check_size(build, options, arrays)
    discriminator = build()
    discriminator.load_state_dict({name: th.tensor(array) for name, array in arrays.items()})
    return discriminator


def _check_size(
    build: Callable[..., Discriminator], options: dict[str, Any], arrays: Arrays
) -> None:
    """
    A few words can ask for terabytes: before any memory is taken, the sizes in words must be those
    of the arrays that are there.
    """
    if len(options["net_arch"]) > min(MAX_LAYERS, len(arrays)):
        raise ValueError(f"{len(options['net_arch'])} layers and {len(arrays)} arrays")
    if _sizes(_outline(build, options)) != _sizes(arrays):
        raise ValueError("the arrays do not fit the architecture")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")


def _outline(build: Callable[..., Discriminator], options: dict[str, Any]) -> dict[str, Any]:
    try:
        with th.device("meta"):  # shapes without content
            return build(spectral_norm=False).state_dict()  # with it, this takes seconds
    except ValueError:
        if options["features_extractor_class"] is None:
            raise
        return build(spectral_norm=False).state_dict()  # a class that needs content


def _sizes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """
    Shapes by name, spectral norms aside: PyTorch compares their singular vectors itself, which are
    smaller than the weights.
    """
    sizes = {name.replace(SPECTRAL, "weight"): each.shape for name, each in tensors.items()}
    return {name: tuple(shape) for name, shape in sizes.items() if ".parametrizations." not in name}


def load_state(path: str | os.PathLike[str]) -> State:
    """
    Read what this package stored in a model's zip. No pickle is opened, so a zip from a stranger
    is safe to look at (``SAC.load`` is another matter: SB3 unpickles parts of the file).

    :param path: a zip that SB3 wrote, with or without the ending ``.zip``
    :return: the state as a plain dict
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if the file is damaged, not SB3's, or holds no discriminator
    """
    file = Path(path)
    if not file.is_file() and file.with_name(file.name + ".zip").is_file():
        file = file.with_name(file.name + ".zip")
    if not file.is_file():
        raise FileNotFoundError(f"path={str(path)!r} is not a file; expected a model saved by SB3.")
    with reading(path, "the zip that model.save() writes. Use another checkpoint"):
        data = _parse_json(read_member(file, "data"))
    state = data.get(STATE_ATTRIBUTE) if isinstance(data, dict) else None
    if not isinstance(state, dict):
        raise ValueError(
            f"path={str(path)!r} holds no discriminator; expected a model trained with "
            "callback=DIAYNCallback(). A model trained without it has no skills."
        )
    check_state(state, str(path))
    wrong = [name for name, kind in STATE_TYPES.items() if not isinstance(state.get(name), kind)]
    if wrong:
        raise _damaged(path, f"wrong {' and '.join(wrong)}")
    if not 2 <= state["n_skills"] <= len(state["arrays"]):  # p(z) alone takes more text
        raise _damaged(path, f"{state['n_skills']} skills")
    return state


def read_member(file: Path, name: str) -> bytes:
    """
    Read a member of a zip that may come from a stranger: what it claims is checked before any
    memory is taken for it.

    :param file: the zip
    :param name: of the member
    :return: its content
    :raises ValueError: if it is much larger than the file; anything else that is wrong raises what
        zipfile and zlib raise
    """
    file_size = file.stat().st_size
    most = min(MAX_DATA_BYTES, max(SMALL_BYTES, MAX_RATIO * file_size))
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo(name)
        if member.file_size > most:
            raise ValueError(f"{member.file_size} bytes of {name} in a file of {file_size}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed in another way than SB3's")
        with archive.open(member) as stream:
            return stream.read(member.file_size)  # without a number, zlib unpacks all there is


def _parse_json(text: bytes) -> Any:
    n_nodes = sum(map(text.count, (b",", b"[", b"{")))
    if n_nodes > MAX_NODES:
        raise ValueError(f"{n_nodes} values, at most {MAX_NODES} are read")
    return json.loads(text)


def _damaged(path: str | os.PathLike[str], reason: object) -> ValueError:
    return ValueError(
        f"path={str(path)!r} holds a damaged discriminator ({brief(reason)}); expected the state "
        "that DIAYNCallback writes. Use another checkpoint."
    )


def check_state(state: State, source: str) -> State:
    """
    :param state: a state that was read from somewhere
    :param source: where from, for the message
    :return: the same state
    :raises ValueError: if a later version of this package wrote it
    """
    if state.get("format_version") != STATE_FORMAT:
        raise ValueError(
            f"format_version={state.get('format_version')!r} in {source} is unknown to this "
            f"version; expected {STATE_FORMAT}. Install the version of sb3-diayn that wrote it."
        )
    return state


def training_history(state: State) -> Arrays:
    """
    :param state: from :func:`load_state`
    :return: at most 500 values of each logged metric of the training, by its name in SB3's logs;
        nothing if the zip is from before they were kept
    :raises ValueError: if they are damaged
    """
    try:
        rows = unpack_arrays(state["arrays"]).get("history")
        if rows is None:
            return {}
        return dict(zip(HISTORY, rows.astype(np.float64).reshape(-1, len(HISTORY)).T, strict=True))
    except Exception as e:  # as in load_state
        raise ValueError(
            f"the history of the training is damaged ({e}); expected what DIAYNCallback writes. "
            "Use another checkpoint."
        ) from e


def load_discriminator(
    path: str | os.PathLike[str],
    *,
    obs_function: ObsFunction | None = None,
    features_extractor_class: ExtractorClass | None = None,
) -> Discriminator:
    """
    Load the discriminator from a model's zip, without unpickling anything.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import SAC
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper, load_discriminator
        >>> env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=4)
        >>> model = SAC("MlpPolicy", env).learn(110, callback=DIAYNCallback())
        >>> model.save("skills.zip")
        >>> load_discriminator("skills.zip").n_skills
        4

    :param path: a zip that ``model.save`` wrote during or after a training with ``DIAYNCallback``
    :param obs_function: what the discriminator reads through, if it was trained with one: the zip
        has only its name, and nothing is imported because a file says so
    :param features_extractor_class: the same of a features extractor; the zip has its arguments
    :return: the discriminator, on the CPU, with bit-equal parameters
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: see :func:`load_state`
    """
    code = UserCode(obs_function, features_extractor_class)
    return discriminator_from_state(load_state(path), path, code)


def discriminator_from_state(
    state: State, path: str | os.PathLike[str], code: UserCode = NO_CODE
) -> Discriminator:
    """
    Same as :func:`load_discriminator`, for a state that has been read already.

    :param state: from :func:`load_state`
    :param path: the zip that it comes from, for messages
    :param code: what the discriminator reads through
    :return: the discriminator, on the CPU, with bit-equal parameters
    :raises ValueError: if the state is damaged, or ``code`` is not what it names
    """
    code.check(state["options"])
    try:
        return build_discriminator(state, code)
    except Exception as e:  # a damaged state can fail in nearly any way
        raise _damaged(path, e) from e


def skill_state(model: BaseAlgorithm) -> State:
    """
    :param model: a model trained with ``DIAYNCallback``, just trained or loaded from its zip
    :return: the current state of its discriminator, as a plain dict
    :raises ValueError: if it has none
    """
    state = getattr(model, STATE_ATTRIBUTE, None)
    if state is None:
        raise ValueError(
            f"model={type(model).__name__} has no discriminator; expected a model trained with "
            "DIAYNCallback. Pass callback=DIAYNCallback() to learn(), as the first of several "
            "callbacks, or load the zip of such a model."
        )
    return dict(state.items())


def model_n_skills(model: BaseAlgorithm) -> int:
    """
    :param model: a model trained with ``DIAYNCallback``
    :return: the number of its skills, K
    :raises ValueError: if it has none
    """
    return int(skill_state(model)["n_skills"])


def model_discriminator(model: BaseAlgorithm) -> Discriminator:
    """
    :param model: a model trained with ``DIAYNCallback``, just trained or loaded from its zip
    :return: its current discriminator, on the CPU
    :raises ValueError: if it has none
    """
    code = getattr(getattr(model, STATE_ATTRIBUTE, None), "code", NO_CODE)
    return build_discriminator(skill_state(model), code)


def pack_state(state: State) -> State:
    """
    :param state: from ``DiscriminatorTrainer.state``
    :return: the same with its arrays as one text, which JSON can hold
    """
    return {**state, "arrays": pack_arrays(state["arrays"])}


def unpack_state(state: State) -> State:
    """
    :param state: from :func:`pack_state`, or a whole saved one
    :return: the same with its arrays by name
    """
    return {**state, "arrays": unpack_arrays(state["arrays"])}


def pack_arrays(arrays: Arrays) -> str:
    """
    :param arrays: arrays by name
    :return: all of them as one text, base64 of NumPy's ``.npz`` format
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def unpack_arrays(text: str) -> Arrays:
    """
    :param text: what :func:`pack_arrays` returned
    :return: arrays by name
    :raises ValueError: if they claim to be larger than the text; anything else that is wrong with
        it raises what NumPy and zipfile raise
    """
    content = base64.b64decode(text, validate=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if len(members) > MAX_ARRAYS:
            raise ValueError(f"{len(members)} arrays, at most {MAX_ARRAYS} are read")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("compressed arrays")
        if sum(member.file_size for member in members) > len(content):
            raise ValueError("arrays larger than their text")
        return {m.filename.removesuffix(".npy"): _read_array(archive.read(m)) for m in members}


def _read_array(content: bytes) -> npt.NDArray[Any]:
    """What ``np.load`` does, which takes the memory that a header claims before it reads on."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array of an unknown format")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    flat = np.frombuffer(content, dtype, math.prod(shape), stream.tell())
    array: npt.NDArray[Any] = flat.reshape(shape, order="F" if is_fortran else "C").copy()
    return array
