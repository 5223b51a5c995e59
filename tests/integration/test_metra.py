"""
What users do with skills of METRA: evaluations, reports, commands. Phi has no probabilities, so
their numbers are left out or refused.
"""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

pytest.importorskip("rl_zoo3")

from sb3_diayn import SkillEvaluationCallback
from sb3_diayn.cli import main
from sb3_diayn.downstream import infer_skill
from sb3_diayn.evaluation import diagnose, plotting
from sb3_diayn.evaluation.comparison import compare
from sb3_diayn.evaluation.dashboard import SkillDashboardCallback
from sb3_diayn.evaluation.evaluate import summarize
from sb3_diayn.evaluation.report import Description, headlines, write_report
from sb3_diayn.evaluation.results import OF_PROBABILITIES, SkillEvaluation
from sb3_diayn.evaluation.trajectories import Trajectory
from sb3_diayn.evaluation.viewer import SkillPlayer
from sb3_diayn.representation import Representation
from tests.helpers.models import K, counting_vec, make_callback, make_ppo
from tests.helpers.runs import ENV, NAME, OPTIONS, QUICK, TINY

ANGLES = 2 * np.pi * np.arange(K) / K
DIRECTIONS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)


@pytest.fixture
def compass():
    """Phi of a plane: a step of length 1 towards skill k moves phi by 3/2 along z of skill k."""
    phi = Representation(spaces.Box(-np.inf, np.inf, (2,)), K, net_arch=())
    with th.no_grad():
        phi.net[-1].weight.copy_(th.as_tensor(DIRECTIONS))
        phi.net[-1].bias.copy_(th.tensor([100.0, 0.0, 0.0]))  # means nothing
    return phi


def walk(skill, direction, n_steps=11):
    states = (5 + np.arange(n_steps)[:, None] * DIRECTIONS[direction]).astype(np.float32)
    return Trajectory(skill, states, np.zeros((n_steps, 2), np.float32), np.zeros(n_steps))


@pytest.fixture
def evaluation(compass):
    """Skills 0 and 1 go in their own directions, and skill 2 goes in the direction of skill 0."""
    return summarize([walk(0, 0), walk(1, 1), walk(2, 0)], compass, 1)


def test_phi_recognises_directions(evaluation):
    assert evaluation.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    # Ten steps after the first one. The direction of skill 0 has a cosine of -1/2 with skill 2.
    np.testing.assert_allclose(evaluation.skill_returns[:, 0], [15, 15, -7.5], rtol=1e-5)


def test_numbers_of_probabilities_are_unknown(evaluation, tmp_path):
    for name in ("log_q", "reliability", "importance"):
        assert np.isnan(getattr(evaluation, name)).all(), name
    assert not evaluation.has_probabilities
    assert not set(OF_PROBABILITIES) & evaluation.numbers().keys()
    assert "log_q" not in evaluation.table() and "log q(z" not in evaluation._repr_html_()
    evaluation.save(tmp_path / "evaluation.json")
    loaded = SkillEvaluation.load(tmp_path / "evaluation.json")
    assert not loaded.has_probabilities and loaded.recognizer == "METRA's phi"
    assert {"Accuracy", "Coverage"} <= headlines(loaded).keys()
    assert not {"Known to D", "Calibration error"} & headlines(loaded).keys()


def test_an_evaluation_of_chosen_coordinates_has_an_importance_of_each(compass):
    phi = Representation(spaces.Box(-9.0, 9.0, (4,)), K, obs_indices=[3])
    states = np.random.default_rng(0).normal(size=(K, 6, 4)).astype(np.float32)
    walks = [Trajectory(k, s, np.zeros((6, 1)), np.zeros(6)) for k, s in enumerate(states)]
    evaluation = summarize(walks, phi, 1)
    assert evaluation.importance.shape == (4,)
    diagnose(evaluation)


def test_diagnoses_speak_of_phi(evaluation):
    evaluation.info |= {"num_timesteps": 100_000, "env_id": "Ant-v5"}
    evaluation.movement[:] = 0
    for bound in (np.log(K), 0.0):
        evaluation.held_out_log_q[:] = bound - np.log(K)
        evaluation.held_out_confusion[:] = np.eye(K)
        text = " ".join(f"{each.message} {each.advice}" for each in diagnose(evaluation))
        for word in ("discriminator", "log_q", "nan", "spectral_norm", "ppo_displacement"):
            assert word not in text
    evaluation.movement[:] = 1
    evaluation.held_out_log_q[:] = 0
    (healthy,) = diagnose(evaluation)
    assert (
        healthy.kind == "healthy" and "METRA's phi recognises 67% of the states" in healthy.message
    )


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_a_report_has_no_number_without_a_meaning(evaluation, compass, tmp_path):
    about = Description("run", "PPO", "Some-v0")
    history = {"time/total_timesteps": [1, 2], "diayn/accuracy": [0.5, 0.5]}
    history["diayn/log_q_z"] = [np.nan, np.nan]
    page = write_report(
        tmp_path,
        evaluation,
        description=about,
        card=about,
        history=history,
        discriminator=compass,
    )
    figures = {file.name for file in tmp_path.glob("*.png")}
    assert figures == {"trajectories.png", "task_returns.png", "confusion.png", "coverage.png"}
    card = (tmp_path / "README.md").read_text()
    assert "without a reward function (METRA)" in card and "- metra\n" in card
    for text in (card, page.read_text()):
        assert "METRA's phi" in text or "METRA&#39;s phi" in text
        assert "log q(z" not in text and "discriminator recognises" not in text


def test_figures_of_probabilities_are_refused(evaluation, compass):
    with pytest.raises(ValueError, match=r"discriminator=Representation has no q.*expected"):
        plotting.plot_discriminator_regions(compass, evaluation)
    with pytest.raises(ValueError, match=r"evaluation.reliability is unknown.*expected"):
        plotting.plot_reliability(evaluation)


def test_a_comparison_with_diayn_leaves_out_what_metra_does_not_have(evaluation):
    frame = compare({"metra": evaluation})
    assert frame[["recognized_skills", "calibration_error"]].isna().all(axis=None)
    assert frame.loc["metra", "accuracy"] == pytest.approx(2 / 3)


def test_imitation_finds_the_direction_of_an_expert(compass):
    found = infer_skill(compass, walk(0, 1).states)
    assert (found.skill, found.decided_at) == (1, 1)  # phi has not moved in the first state
    np.testing.assert_allclose(found.log_q.sum(axis=0), [-7.5, 15, -7.5], rtol=1e-5)
    for name in ("posterior", "mean_q"):
        with pytest.raises(ValueError, match=f"{name} has no meaning.*'metra'.*expected 'diayn'"):
            getattr(found, name)
    with pytest.raises(ValueError, match=r"observations has one state.*expected at least two"):
        infer_skill(compass, np.zeros((1, 2)))


def test_the_viewer_shows_no_guesses():
    phi = Representation(spaces.Box(-np.inf, np.inf, (2,)), K)
    player = SkillPlayer(make_ppo(counting_vec(1)), counting_vec(1), phi)
    player.step(np.eye(K, dtype=np.float32)[1])
    assert player.probabilities() is None and not player.has_probabilities


@pytest.mark.slow
def test_callbacks_of_an_evaluation(tmp_path):
    metra = make_callback(objective="metra")
    evaluating = SkillEvaluationCallback(
        counting_vec(2), eval_freq=48, save_path=tmp_path / "skills"
    )
    page = tmp_path / "live.html"
    dashboard = SkillDashboardCallback(page, n_films=0)
    make_ppo(counting_vec(2)).learn(96, callback=[metra, evaluating, dashboard])
    assert not set(OF_PROBABILITIES) & evaluating.history[-1].keys()
    assert (tmp_path / "skills" / "best_model.zip").is_file()
    assert "squared step of phi" in page.read_text() and "log q(z" not in page.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_at_mutual_information": 1.0}, "stop_at_mutual_information=1.0 .*expected None"),
        ({"n_episodes": 1, "save_path": "skills"}, "n_episodes=1 finds no best.*at least 2"),
    ],
)
def test_what_an_evaluation_cannot_judge_is_refused(options, message):
    evaluating = SkillEvaluationCallback(counting_vec(2), eval_freq=48, **options)
    with pytest.raises(ValueError, match=message):
        make_ppo(counting_vec(2)).learn(48, callback=[make_callback(objective="metra"), evaluating])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a tiny run."""
    logs = tmp_path_factory.mktemp("logs")
    words = ["train", "--env", ENV, "--n-skills", str(K), "-n", "60", "--seed", "1", *QUICK, *TINY]
    at = words.index("--hyperparams") + 1
    own = ["objective:metra", "cross_fit:false", "log_q_min:None"]  # METRA's phi knows neither
    words[at:at] = [f"DIAYNCallback.{option}" for option in own]
    assert main([*words, "-f", str(logs), "--no-report"]) == 0
    return logs / "sac" / f"{NAME}_1"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "report", "plot", "export", "push", "finetune"])
def test_commands(run, command, capsys, tmp_path):
    words = [command, str(run), *OPTIONS[command]]
    words += {"finetune": ["-f", str(tmp_path)], "push": []}.get(command, ["-o", str(tmp_path)])
    if command in ("export", "finetune"):
        words += ["--skill", "best"]
    if command == "evaluate":
        words[-1] = str(tmp_path / "evaluation.json")
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "log q(z" not in printed and "the discriminator" not in printed
    assert "nan" not in printed.replace("finetun", "")


@pytest.mark.slow
def test_compare_and_imitate(run, capsys, tmp_path):
    page = tmp_path / "page"
    assert main(["compare", str(run), "-o", str(page), *OPTIONS["compare"]]) == 0
    assert "n/a" in capsys.readouterr().out
    assert "nan%" not in (page / "index.html").read_text()
    expert = tmp_path / "expert.npy"
    np.save(expert, np.linspace([0, 0], [1, 1], 10))
    assert main(["imitate", str(run), "--trajectory", str(expert), "--no-films"]) == 0
    printed = capsys.readouterr().out
    assert "phi moves" in printed and "posterior" not in printed
