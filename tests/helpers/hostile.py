"""Zips of at most 1 MB that ask for much memory or time, each in another way."""

import base64
import functools
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def npy(descr: str, shape: str, content: bytes = bytes(64)) -> bytes:
    """An array by the words of its header."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def npz(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Arrays by name."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, content in members:
                archive.writestr(name, content)
    return buffer.getvalue()


def overlapping(content: bytes, n_members: int) -> bytes:
    """A zip whose directory names one member many times."""
    single = npz([("a.npy", content)])
    start = int.from_bytes(single[-6:-2], "little")
    entry, end = single[start:-22], bytearray(single[-22:])
    for place in (8, 10):
        end[place : place + 2] = n_members.to_bytes(2, "little")
    end[12:16] = (n_members * len(entry)).to_bytes(4, "little")
    return single[:start] + entry * n_members + bytes(end)


def lying(content: bytes, claimed: int) -> bytes:
    """A zip of one member, which its directory says to be of another size."""
    archive = bytearray(content)
    start = int.from_bytes(archive[-6:-2], "little")
    archive[start + 24 : start + 28] = claimed.to_bytes(4, "little")
    return bytes(archive)


class HostileFiles:
    """
    Writes them.

    :param saved: a model's zip, to change
    :param folder: where to
    """

    def __init__(self, saved: Path, folder: Path) -> None:
        self.saved, self.folder = saved, folder
        folder.mkdir()
        self.texts()
        self.zips()
        self.words()
        self.spaces()
        self.boxes()
        self.arrays()
        self.archives()

    # -- ways to write one -----------------------------------------------------------------

    def raw(self, name: str, content: bytes) -> None:
        (self.folder / f"{name}.zip").write_bytes(content)

    def text(self, name: str, content: str, compression: int = zipfile.ZIP_DEFLATED) -> None:
        with zipfile.ZipFile(self.folder / f"{name}.zip", "w", compression) as archive:
            archive.writestr("data", content)

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        with zipfile.ZipFile(self.saved) as archive:
            data = json.loads(archive.read("data"))
        change(data["diayn_state"])
        self.text(name, json.dumps(data))

    def keys(self, name: str, **changes: Any) -> None:
        self.edit(name, lambda state: state.update(changes))

    def options(self, name: str, **changes: Any) -> None:
        self.edit(name, lambda state: state["options"].update(changes))

    def space(self, name: str, kind: str, obs_indices: Any = None, **details: Any) -> None:
        def change(state: Any) -> None:
            state["options"]["obs_indices"] = obs_indices
            state["observation_space"] = {"type": kind, **details}

        self.edit(name, change)

    def images(self, name: str, shape: list[int], n_parts: int) -> None:
        part = {"type": "Image", "shape": shape}
        self.space(name, "Dict", spaces=dict.fromkeys(range(n_parts), part))

    def array(self, name: str, content: bytes) -> None:
        def change(state: Any) -> None:
            buffer = io.BytesIO(base64.b64decode(state["arrays"]))
            with zipfile.ZipFile(buffer, "a") as archive:
                archive.writestr("discriminator.more.npy", content)
            state["arrays"] = base64.b64encode(buffer.getvalue()).decode()

        self.edit(name, change)

    # -- the files -------------------------------------------------------------------------

    def texts(self) -> None:
        self.text("empty lists", "[" + "[]," * 20_000_000 + "[]]")
        self.text("as many lists as are read", "[" + "[]," * 1_300_000 + "[]]")
        self.text("as many dicts as are read", "[" + "{}," * 1_300_000 + "{}]")
        self.text("as many small dicts as are read", "[" + '{"":0},' * 590_000 + "0]")
        self.text("as many keys as are read", json.dumps(dict.fromkeys(range(310_000), 0)))
        self.text("a key many times", "{" + '"diayn_state":{"a":[]},' * 170_000 + '"b":0}')
        self.text("a long string", '"' + "\N{GRINNING FACE}" * 1_000_000 + '"')
        self.text("a long number", "9" * 4_000_000)
        self.text("a long real number", "1." + "9" * 4_000_000)
        self.text("many long numbers", "[" + ("9" * 4000 + ",") * 1_000 + "0]")
        self.text("deep lists", "[" * 4_000_000)
        self.text("deep dicts", '{"a":' * 800_000)

    def zips(self) -> None:
        blanks = " " * 250_000_000
        deflated = npz([("data", blanks.encode())], zipfile.ZIP_DEFLATED)
        self.raw("blanks", deflated)
        self.text("bzip2", blanks, zipfile.ZIP_BZIP2)
        self.raw("a size that is a lie", lying(deflated, claimed=100))
        self.raw("many members", overlapping(b" ", 18_000).replace(b"a.npy", b"data\0"))

    def words(self) -> None:
        self.options("wide layers", net_arch=[100_000] * 3)
        self.options("a wide layer", net_arch=[10**18])
        self.options("many layers", net_arch=[1] * 1_000_000)
        self.options("many indices", obs_indices=list(range(450_000)))
        self.options("a long slice", obs_indices="0:" + "9" * 4_000)
        self.options("a long name", obs_function="a" * 4_000_000)
        self.keys("many skills", n_skills=10**9)
        self.keys("very many skills", n_skills=10**400)
        self.keys("as many skills as are read", n_skills=1000)
        self.keys("many actions", action_space={"type": "Discrete", "n": 10**10})

    def spaces(self) -> None:
        self.space("large image", "Image", shape=[1, 8192, 8192])
        self.space("the largest image that is read", "Image", shape=[1, 4096, 4096])
        self.space("negative image", "Image", shape=[-4096, -8192, 1])
        self.space("long image", "Image", shape=[1, 1, 10**400])
        self.space("image of many axes", "Image", shape=[1] * 1_000_000)
        self.images("many large images", [1, 8192, 8192], 500)
        self.images("many small images", [1, 36, 36], 1000)
        self.images("as many images as are read", [1, 36, 36], 64)
        self.images("as large images as are read", [1, 512, 512], 64)
        self.images("negative images", [-(2**20), 1, 1], 64)
        discrete = {"type": "Discrete", "n": 2}
        self.space("many parts", "Dict", spaces=dict.fromkeys(range(100_000), discrete))
        self.space("as many parts as are read", "Dict", spaces=dict.fromkeys(range(1024), discrete))
        self.space("nested", "Dict", spaces={"a": {"type": "Dict", "spaces": {}}})
        deep = functools.reduce(
            lambda inner, _: {"type": "Dict", "spaces": {"a": inner}}, range(300), {}
        )
        self.space("deep", "Dict", spaces={"a": deep})
        self.space("many indices of a space", "MultiDiscrete", nvec=[2] * 1_000_000)
        self.space("large indices", "MultiDiscrete", nvec=[10**18] * 4)
        self.space("large binary", "MultiBinary", n=10**9)
        self.space("slice of a large binary", "MultiBinary", "0:2", n=10**9)
        self.space("slice of the largest binary that is read", "MultiBinary", "0:", n=2**20)
        self.space("large binary matrix", "MultiBinary", n=[10**6, 10**6])

    def boxes(self) -> None:
        zeros, short, empty = [0] * 600_000, ["a"] * 1000, [[]] * 100_000
        long = [*short, "a" * 1_000_000]
        self.space("large box", "Box", dtype="float64", low=zeros, high=zeros)
        self.space("box of long strings", "Box", dtype="U1000000", low=short, high=short)
        self.space("box of a long string", "Box", dtype="str", low=long, high=long)
        self.space("box of objects", "Box", dtype="O", low=empty, high=empty)

    def arrays(self) -> None:
        self.array("large array", npy("<f4", "(1000000000000,)"))
        self.array("array of 16 GB", npy("<f4", "(4000000000,)"))
        self.array("array of nothing", npy("|V0", "(1000000000000000000,)"))
        self.array("array of large items", npy("|V2000000000", "(3,)"))
        self.array("deep header", npy("<f4", "(" * 5000 + ")" * 5000))
        self.array("very large array", npy("<f4", "(99999999999999999999999,)"))
        self.array("negative array", npy("<f4", "(-1,)"))
        self.array("negative sizes", npy("<f4", "(-4, -4)"))
        self.array("objects", npy("|O", "(1,)"))
        self.array("no array", b"")
        self.array("no header", b"\x93NUMPY")
        self.array("wide history", npy("<f4", "(1, 100000)", bytes(400_000)))

    def archives(self) -> None:
        zeros = npy("<f4", "(50000000,)", bytes(200_000_000))
        large = npy("<f4", "(100000,)", bytes(400_000))
        weight = npy("<f4", "(1, 1)", bytes(4))
        bomb = npz([("history.npy", zeros)], zipfile.ZIP_DEFLATED)
        layers = npz([(f"discriminator.net.{i}.weight.npy", weight) for i in range(4000)])
        contents = {
            "arrays that are a bomb": bomb,
            "arrays that lie": lying(bomb, claimed=100),
            "overlapping arrays": overlapping(large, 4000),
            "many arrays": overlapping(b"", 60_000),
            "layers": layers,
        }
        for name, content in contents.items():
            self.keys(name, arrays=base64.b64encode(content).decode())
        for name, n_layers in {"as many layers as arrays": 4000, "deep net": 256}.items():

            def change(state: Any, n_layers: int = n_layers) -> None:
                state["arrays"] = base64.b64encode(layers).decode()
                state["options"] |= {"net_arch": [1] * n_layers, "spectral_norm": True}

            self.edit(name, change)
