"""Every figure of the reference results comes from a file, and no run is left out."""

import json
import re

import pytest
import yaml

pytest.importorskip("seaborn")
pytest.importorskip("scipy")

from docs.tables.reference import WITH_MODEL
from docs.tables.reference_tables import (
    PAGE,
    READS,
    REFERENCES,
    RESULTS,
    TABLES,
    csv_files,
    other_n_skills,
    runs,
    with_tables,
)
from sb3_diayn import SkillEvaluation, load_discriminator
from sb3_diayn.zoo.hyperparams import config_path, read_config

pytestmark = pytest.mark.slow

OTHER_K = {folder.name: folder for folder in other_n_skills()}
LOGS = {"provided": RESULTS, **OTHER_K, **READS}
FOLDERS = sorted(file.parent for logs in LOGS.values() for file in logs.glob("*/*/run.json"))


def test_the_tables_are_those_of_the_files():
    remedy = "run python -m docs.tables.reference"
    assert PAGE.read_text(encoding="utf-8") == with_tables(), remedy
    for file, content in csv_files().items():
        assert file.read_text(encoding="utf-8") == content, remedy


def test_no_table_of_the_page_is_wider_than_eight_columns():
    assert max(len(columns) for _, columns in TABLES.values()) <= 8


@pytest.mark.parametrize("results", LOGS.values(), ids=LOGS)
def test_no_seed_is_left_out(results):
    for (env_id, algo), part in runs(results).groupby(["env", "algo"], observed=True):
        assert list(part["seed"]) == list(range(len(part))), (env_id, algo)
        assert part[["K", "steps"]].nunique().eq(1).all()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.relative_to(RESULTS).as_posix())
def test_a_run_used_the_provided_configuration(folder):
    env_id, logs = folder.name.rpartition("_")[0], folder.parent.parent
    travels, n_skills = logs in READS.values(), logs.name.removeprefix("K_")
    variant = logs.name if logs.name in ("displacement", "metra") else "travel"
    name = folder.parent.name + (f"_{variant}" if travels else "")
    used = yaml.load((folder / env_id / "config.yml").read_text(), Loader=yaml.UnsafeLoader)
    provided = yaml.safe_load(config_path(name).read_text(encoding="utf-8"))[env_id]
    command = json.loads((folder / "run.json").read_text(encoding="utf-8"))["command"]
    assert f"--env {env_id} " in command
    assert (f"--conf-file {name}" in command) == travels
    assert (f"--n-skills {n_skills}" in command) == (logs in OTHER_K.values())
    if logs in OTHER_K.values():
        provided = read_config(name, env_id, n_skills=int(n_skills))
    assert ("--hyperparams" in command) == (logs == READS["everything"])
    (discriminator,) = provided["callback"]
    if logs == READS["everything"]:  # the same with another discriminator
        discriminator["sb3_diayn.DIAYNCallback"]["obs_indices"] = None
    if folder.parent.name == "sac":  # the whole batch was the default when most were made
        batch_size = discriminator["sb3_diayn.DIAYNCallback"].pop("batch_size")
        assert batch_size == _options(used).pop("batch_size", used["batch_size"])
    if vec_wrapper := used.pop("vec_env_wrapper", None):  # the simulator was EnvPool
        (options,) = vec_wrapper[0].values()
        used["env_wrapper"] = [{"sb3_diayn.DIAYNWrapper": options}]
    # In lists of callbacks and wrappers one without options is its name alone.
    assert {k: _listed(v) for k, v in used.items()} == {k: _listed(v) for k, v in provided.items()}


def _options(config):
    (callback,) = _listed(config["callback"])
    return {} if isinstance(callback, str) else callback["sb3_diayn.DIAYNCallback"]


def _listed(value):
    return [value] if isinstance(value, str) and value.startswith("sb3_diayn.") else value


@pytest.mark.parametrize("name", ["command.txt", "args.yml"])
def test_no_run_tells_where_something_was_installed(name):
    files = sorted(RESULTS.rglob(name))
    assert len(files) > 100
    assert not [f for f in files if re.search(r"(^|\s)/\w", f.read_text(encoding="utf-8"))]


def test_models_to_try_at_once():
    files = set(RESULTS.rglob("*.zip")) - set(RESULTS.glob("downstream/controllers/*.zip"))
    folders = {file.parent.relative_to(RESULTS).as_posix() for file in files}
    assert folders == set(WITH_MODEL)
    for folder in map(RESULTS.joinpath, folders):
        model = folder / f"{folder.name.removesuffix('_1')}.zip"
        assert load_discriminator(model).n_skills == load_evaluation(folder).n_skills


def load_evaluation(folder):
    return SkillEvaluation.load(folder / "evaluation.json")


def test_the_results_are_small():
    assert sum(file.stat().st_size for file in RESULTS.rglob("*.*")) < 20e6
    assert set(runs()["env"]) <= set(REFERENCES)
