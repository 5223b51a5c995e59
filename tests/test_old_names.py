"""Scripts and pickles of version 0.1.0 name modules that have moved since."""

import importlib
import pickle
import subprocess
import sys
import warnings

import pytest

pytest.importorskip("rl_zoo3")
pytest.importorskip("seaborn")

import sb3_diayn
from sb3_diayn.buffers import EpisodeGate
from sb3_diayn.old_names import NEW_NAMES

# What the API reference of 0.1.0 showed where it no longer is, and what its pickles name.
DOCUMENTED = {
    "checkpoint": ["load_discriminator", "load_state"],
    "checkpointing": ["DIAYNCheckpointCallback"],
    "comparison": ["compare", "interval", "plot_comparison", "summarize_groups"],
    "composition": ["ScheduledSkills", "mix_skills"],
    "diagnosis": ["Diagnosis", "diagnose"],
    "export": ["export_skill", "export_vec_normalize"],
    "folders": ["newest_checkpoint"],
    "gating": ["EpisodeGate"],
    "grid": ["GridRun"],
    "hierarchy": ["SkillActionEnv", "SkillActionVecEnv", "WaitAtEnd"],
    "locomotion": ["AntWaypointsEnv", "HalfCheetahHurdleEnv"],
    "metrics": ["confusion_matrix", "coverage", "movement", "mutual_information"],
    "monitoring": ["SkillEvaluationCallback"],
    "navigation": ["PointNavigationEnv"],
    "plotting": ["plot_confusion", "plot_task_returns", "plot_trajectories", "skill_colors"],
    "presets": ["preset"],
    "provenance": ["load_provenance"],
    "ranking": ["best_skill", "rank_skills"],
    "report": ["model_card", "write_report"],
    "results": ["SkillEvaluation"],
    "resuming": ["resume"],
    "retrieval": ["Demonstration", "SkillInference", "infer_skill", "load_demonstration"],
    "runs": ["Run", "find_run"],
    "sweep": ["run_sweep"],
    "trajectories": ["Trajectory", "play_skills"],
    "tuning": ["tune"],
    "vec_wrapper": ["VecDIAYNWrapper"],
    "video": ["record_grid", "record_skills"],
    "warmup": ["WarmUp"],
    "zoo_export": ["export_run"],
}
# Their names have stayed, and now they are packages.
PACKAGES = {"evaluation": ["evaluate_skills"], "zoo": ["config_path"]}


@pytest.fixture
def fresh_import(monkeypatch):
    """Imports an old module as if for the first time, and leaves none behind."""
    monkeypatch.setattr(sb3_diayn, "tasks", sb3_diayn.tasks)

    def import_again(name):
        sys.modules.pop(f"sb3_diayn.{name}", None)
        return importlib.import_module(f"sb3_diayn.{name}")

    yield import_again
    for name in NEW_NAMES:
        sys.modules.pop(f"sb3_diayn.{name}", None)


@pytest.mark.parametrize("name", sorted(NEW_NAMES.keys() - {"tasks"}))
def test_an_old_module_says_where_it_is_now(name, fresh_import):
    with pytest.warns(DeprecationWarning) as caught:
        fresh_import(name)
    (message,) = [str(warning.message) for warning in caught]
    for new_name in NEW_NAMES[name]:
        assert importlib.import_module(f"sb3_diayn.{new_name}")
        assert f"sb3_diayn.{new_name}" in message


@pytest.mark.filterwarnings("ignore:sb3_diayn.* is now:DeprecationWarning")
@pytest.mark.parametrize("name", DOCUMENTED)
def test_an_old_module_offers_what_was_documented(name, fresh_import):
    module = fresh_import(name)
    for documented in DOCUMENTED[name]:
        found = getattr(module, documented)
        # The thing itself, from where it is now, and the public one where there is one.
        assert found.__module__.removeprefix("sb3_diayn.") in NEW_NAMES[name]
        assert getattr(sb3_diayn, documented, found) is found


@pytest.mark.parametrize("name", PACKAGES)
def test_what_was_a_module_and_is_a_package_offers_the_same(name):
    module = importlib.import_module(f"sb3_diayn.{name}")
    assert all(hasattr(module, documented) for documented in PACKAGES[name])


@pytest.mark.filterwarnings("ignore:sb3_diayn.* is now:DeprecationWarning")
def test_a_name_that_never_was_is_missing(fresh_import):
    assert not hasattr(fresh_import("gating"), "Gate")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("sb3_diayn.never_was")


@pytest.mark.parametrize("statement", ["import sb3_diayn.tasks", "from sb3_diayn import tasks"])
def test_the_tasks_keep_their_name_without_a_warning(statement, fresh_import):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fresh_import("tasks") is sb3_diayn.envs
        exec(statement, {})
    assert sb3_diayn.tasks is sb3_diayn.envs


@pytest.mark.slow
def test_a_script_sees_the_warning_at_its_own_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sb3_diayn\nfrom sb3_diayn.resuming import resume\n")
    run = subprocess.run(
        [sys.executable, "-W", "always::DeprecationWarning:__main__", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "sb3_diayn.resuming is now sb3_diayn.checkpoints" in run.stderr
    assert f"{script}:2" in run.stderr


@pytest.mark.filterwarnings("ignore:sb3_diayn.* is now:DeprecationWarning")
def test_a_pickle_that_names_an_old_module_loads(fresh_import):
    """As a replay buffer of 0.1.0 does, whose gate was in a module of its own."""
    content = pickle.dumps(EpisodeGate(5, 2), protocol=0)  # names as text, so that they can change
    assert b"csb3_diayn.buffers\nEpisodeGate" in content
    old = content.replace(b"csb3_diayn.buffers\nEpisodeGate", b"csb3_diayn.gating\nEpisodeGate")
    gate = pickle.loads(old)
    assert type(gate) is EpisodeGate
    assert gate.returns.shape == (5, 2)
