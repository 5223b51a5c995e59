"""Arrays as one text that JSON can hold, and back, whatever the text turns out to be."""

import base64
import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from torch import nn
from torch.optim import Optimizer

Arrays = dict[str, npt.NDArray[Any]]


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
        if sum(member.file_size for member in archive.infolist()) > len(content):
            raise ValueError("arrays larger than their text")  # ours are not compressed
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def save_modules(discriminator: nn.Module, optimizer: Optimizer, extra: Arrays) -> str:
    """
    :param discriminator: a discriminator
    :param optimizer: its optimiser
    :param extra: further arrays by name
    :return: everything that the two learned and the further arrays, as one text
    """
    tensors = {f"discriminator.{k}": v for k, v in discriminator.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
    return pack_arrays({k: v.detach().cpu().numpy() for k, v in tensors.items()} | extra)


def restore_modules(
    text: str, discriminator: nn.Module, optimizer: Optimizer | None = None
) -> Arrays:
    """
    :param text: from :func:`save_modules`
    :param discriminator: a discriminator of the same architecture, changed in place
    :param optimizer: its optimiser, likewise; None to leave it out
    :return: the further arrays
    """
    groups = unpack_groups(text)
    discriminator.load_state_dict({k: th.tensor(v) for k, v in groups["discriminator"].items()})
    if optimizer is not None:
        moments: dict[int, dict[str, th.Tensor]] = {}
        for key, value in groups["optimizer"].items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = th.tensor(value)
        param_groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": param_groups})
    return groups["extra"]


def unpack_groups(text: str) -> dict[str, Arrays]:
    """
    :param text: from :func:`save_modules`
    :return: arrays by name, under "discriminator", "optimizer" and "extra"
    """
    groups: dict[str, Arrays] = {"discriminator": {}, "optimizer": {}, "extra": {}}
    for key, value in unpack_arrays(text).items():
        group, _, name = key.rpartition(".") if "." not in key else key.partition(".")
        groups[group or "extra"][name] = value
    return groups
