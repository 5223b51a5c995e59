"""The viewer: its keys, what it plays, and its window, with a display and without one."""

import os
import shutil
import subprocess
import threading
import time

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

pytest.importorskip("pygame")
pytest.importorskip("PIL")

import pygame

from sb3_diayn import DIAYNWrapper, Discriminator, VecDIAYNWrapper
from sb3_diayn.downstream import ScheduledSkills
from sb3_diayn.evaluation import SkillPolicy, play_skills, viewer
from sb3_diayn.evaluation.trajectories import as_vec_env, borrow
from sb3_diayn.evaluation.viewer import Controls, SkillPlayer, view_skills
from sb3_diayn.observations import map_obs
from sb3_diayn.skills import SkillSpace
from tests.helpers.envs import CountingEnv, EchoEnv, PointEnv
from tests.helpers.models import constant_discriminator, counting, make_ppo, recurrent
from tests.helpers.scripted import DIRECTIONS, K, compass, point_vec, walker

PICTURES = {"render_mode": "rgb_array"}


def press(controls, *keys, now=0.0):
    for key in keys:
        controls.press(key, now=now)
    return controls


# -- keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "skill"),
    [
        (["3"], 3),
        (["1", "2"], 12),
        (["1", "9", "2"], 2),  # 192 is no skill, so the last digit begins a new number
        (["left"], 19),
        (["right", "right"], 2),
        (["1", "9", "right"], 0),
        (["x", "f1", ""], 0),
    ],
)
def test_keys_choose_a_skill(keys, skill):
    assert press(Controls(20), *keys).skill == skill


def test_digits_with_a_pause_between_them_are_two_numbers():
    controls = press(Controls(20), "1", now=0.0)
    assert press(controls, "2", now=1.5).skill == 2


def test_a_digit_that_is_no_skill_changes_nothing():
    assert press(Controls(3, skill=1), "7").skill == 1


@pytest.mark.parametrize(
    ("keys", "weights"),
    [
        ([], [0, 1, 0, 0]),
        (["up"] * 3, [0, 0.7, 0.3, 0]),
        (["up"] * 12, [0, 0, 1, 0]),
        (["up", "down", "down"], [0, 1, 0, 0]),
        (["up", "m"], [0, 0.9, 0, 0.1]),
        (["up", "M"], [0, 1, 0, 0]),  # skill 1 with itself
        (["up", "M", "M"], [0.1, 0.9, 0, 0]),
        (["up"] * 5 + ["3"], [0, 0, 0.5, 0.5]),
    ],
)
def test_keys_mix_two_skills(keys, weights):
    assert press(Controls(4, skill=1), *keys).weights == pytest.approx(weights)


def test_keys_set_the_pace():
    controls = Controls(4)
    assert controls.steps_due(0.1, 50) == 5
    assert press(controls, "+").steps_due(0.1, 50) == 10
    assert press(controls, "-", "-").steps_due(0.1, 50) == 2  # and half a step is owed
    assert controls.steps_due(0.1, 50) == 3
    assert controls.steps_due(60.0, 50) == 2  # a window that stood still does not race
    assert press(controls, *"++++++++++++").speed == 16
    assert press(controls, *"------------").speed == 1 / 16


def test_keys_pause_and_play_one_step():
    controls = press(Controls(4), "space")
    assert controls.is_paused and controls.steps_due(1.0, 50) == 0
    assert press(controls, ".").steps_due(0.1, 50) == 1
    assert controls.steps_due(0.1, 50) == 0
    assert press(controls, "space").steps_due(0.1, 50) == 5
    assert press(controls, ".").is_paused


def test_keys_reset_and_close():
    controls = Controls(4)
    controls.is_reset_due = False
    assert press(controls, "R").is_reset_due  # with the shift lock, too
    assert controls.is_open
    assert not press(controls, "escape").is_open and not press(Controls(4), "q").is_open


@pytest.mark.parametrize("skills", [{"skill": 4}, {"second": -1}])
def test_a_skill_that_does_not_exist_is_refused(skills):
    with pytest.raises(ValueError, match=r"is not one of the skills; expected an integer from 0"):
        Controls(4, **skills)


# -- what is played --------------------------------------------------------------------------


def one_hot(skill, n_skills):
    return np.eye(n_skills, dtype=np.float32)[skill]


def normalised(env):
    env = VecNormalize(env, training=False)
    env.obs_rms.mean[:], env.obs_rms.var[:] = 0.4, 9.0
    return env


KINDS = {
    "plain": lambda: DummyVecEnv([counting]),
    "normalised": lambda: normalised(DummyVecEnv([counting])),
    "stacked": lambda: VecFrameStack(DummyVecEnv([counting]), 3),
    "both": lambda: normalised(VecFrameStack(DummyVecEnv([counting]), 2)),
    "vectorised": lambda: VecDIAYNWrapper(DummyVecEnv([CountingEnv]), 3),
}


def acting(model):
    """The actions of a model, from now on."""
    actions, predict = [], model.predict

    def record(*args, **kwargs):
        action, state = predict(*args, **kwargs)
        actions.append(action.copy())
        return action, state

    model.predict = record
    return actions


@pytest.mark.parametrize("make_env", KINDS.values(), ids=KINDS)
def test_a_single_skill_is_played_as_by_play_skills(make_env):
    """Two episodes of five steps, whose rewards are 1 to 5."""
    model = make_ppo(make_env())
    seen, predict = [], model.predict
    model.predict = lambda obs, *rest: seen.append(obs.copy()) or predict(obs, *rest)
    list(play_skills(model, make_env(), [2, 2], seed=0))
    expected = np.array(seen)
    seen.clear()
    player = SkillPlayer(model, make_env(), constant_discriminator([1 / 3] * 3), seed=0)
    for _ in range(10):
        player.step(one_hot(2, 3))
    assert np.array(seen) == pytest.approx(expected, abs=1e-5)
    assert player.last_episode == (15.0, 5)
    player.step(one_hot(2, 3))
    assert (player.task_return, player.n_steps) == (1.0, 1)


def test_skills_are_switched_as_by_a_schedule():
    """Also in the memory of a recurrent policy, which belongs to one skill."""
    schedule = [(0, 3), ({0: 3, 1: 1}, 2), (1, 4)]
    env = ScheduledSkills(PointEnv(length=9), 2, schedule)
    model = recurrent(DIAYNWrapper(PointEnv(), 2))
    policy, expected, state = SkillPolicy(model, env), [], None
    obs, _ = env.reset(seed=0)
    for _ in range(9):
        action, state = policy.predict(obs, state, np.zeros(1, bool), deterministic=True)
        expected.append(action)
        obs, *_ = env.step(action)
    venv = DummyVecEnv([lambda: DIAYNWrapper(PointEnv(length=9), 2)])
    player = SkillPlayer(model, venv, constant_discriminator([0.5, 0.5]), seed=0)
    actions = acting(model)
    for weights in [[1, 0]] * 3 + [[0.75, 0.25]] * 2 + [[0, 1]] * 4:
        player.step(np.array(weights, np.float32))
    assert np.array(actions)[:, 0] == pytest.approx(np.array(expected), abs=1e-5)


def test_frames_from_before_the_episode_have_no_skill():
    env = VecFrameStack(DummyVecEnv([counting]), 3)
    model = make_ppo(env)
    seen, predict = [], model.predict
    model.predict = lambda obs, *rest: seen.append(obs.copy()) or predict(obs, *rest)
    player = SkillPlayer(model, env, constant_discriminator([1 / 3] * 3))
    for _ in range(3):
        player.step(np.array([0.5, 0.5, 0], np.float32))
    played = [obs.reshape(3, 5)[:, 2:].sum(axis=1).tolist() for obs in seen]
    assert played == [[0, 0, 1], [0, 1, 1], [1, 1, 1]]


def test_the_discriminator_guesses_from_the_newest_state():
    """A walker goes up with skill 1, and then to the left with skill 2."""
    player = SkillPlayer(walker(), point_vec(length=4), compass(), seed=0)
    assert player.probabilities() is None
    for skill in (1, 1, 2, 2):  # the last state is the terminal one, half up and half left
        player.step(one_hot(skill, K))
        probabilities = player.probabilities()
        assert probabilities.sum() == pytest.approx(1)
        assert probabilities.argmax() == 1 or skill == 2
    assert probabilities[[1, 2]].sum() == pytest.approx(1, abs=1e-3)
    player.reset()
    assert player.probabilities() is None


@pytest.mark.parametrize("kind", ["matrix", "image", "discrete", "dict", "image_dict"])
def test_every_kind_of_observation_is_played_and_guessed(kind):
    """The same probabilities as for the states that ``play_skills`` returns."""
    env = as_vec_env(DIAYNWrapper(EchoEnv(kind), 2))
    model = PPO("MultiInputPolicy", env, device="cpu", seed=0, policy_kwargs={"net_arch": [4]})
    space = SkillSpace.from_vec_env(env, 2).env_space
    discriminator = Discriminator(space, 2, net_arch=[4])
    (episode,) = play_skills(model, env, [1], seed=0)
    with th.no_grad():
        logits = discriminator(map_obs(th.as_tensor, episode.observations))
    expected = logits.double().softmax(dim=1).numpy()
    with borrow(model, env, 0):
        player = SkillPlayer(model, env, discriminator, seed=0)
        for probabilities in expected:
            player.step(one_hot(1, 2))
            assert player.probabilities() == pytest.approx(probabilities, abs=1e-6)
    assert player.last_episode == (0.0, 5)


def test_a_reset_leads_to_the_same_start():
    player = SkillPlayer(walker(), point_vec(), compass(), seed=3)
    returns = []
    for _ in range(2):
        for _ in range(5):
            player.step(one_hot(0, K))
        returns.append(player.task_return)
        player.reset()
        assert (player.task_return, player.n_steps) == (0, 0)
    assert returns[0] == returns[1]


def test_several_environments_are_refused():
    with pytest.raises(ValueError, match="env has 2 environments; expected one"):
        SkillPlayer(walker(), point_vec(2), compass())


# -- the window ------------------------------------------------------------------------------


@pytest.fixture
def no_display(monkeypatch):
    for name in viewer.DISPLAY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


def test_without_a_display_there_is_another_way(no_display, monkeypatch):
    with pytest.raises(OSError, match=r"no display for a window.*sb3-diayn report RUN"):
        view_skills(walker(), point_vec(**PICTURES))
    monkeypatch.delenv("SDL_VIDEODRIVER")
    if os.name == "posix" and os.uname().sysname == "Linux":
        with pytest.raises(OSError, match="no display for a window"):
            view_skills(walker(), point_vec(**PICTURES))


def key_event(key, letter=""):
    return pygame.event.Event(pygame.KEYDOWN, key=key, unicode=letter)


def test_the_window_plays_and_gives_everything_back(no_display, monkeypatch):
    """Walk for a while, switch the skill, mix, and close the window."""
    monkeypatch.setattr(viewer, "NO_WINDOW", set())
    events = [[key_event(pygame.K_2, "2")], [key_event(pygame.K_UP)]] + [[]] * 8
    events += [[key_event(pygame.K_SPACE, " "), key_event(pygame.K_PERIOD, ".")], []]
    events += [[pygame.event.Event(pygame.QUIT)]]
    monkeypatch.setattr(viewer.pygame.event, "get", lambda: events.pop(0))
    env, model = point_vec(length=1000, **PICTURES), walker()
    env.env_method("set_skill", "cycle")
    actions = acting(model)
    view_skills(model, env, discriminator=compass(), skill=1, seed=0)
    assert not events and not pygame.display.get_init()
    walked = [DIRECTIONS.tolist().index(action[0].tolist()) for action in actions]
    assert walked and set(walked) == {2}
    assert env.get_attr("skill_rule") == ["cycle"]


@pytest.fixture
def display(monkeypatch):
    """A display of X11 that nobody sees."""
    for tool in ("Xvfb", "xdotool"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x800x24"]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as numbers:
        name = f":{numbers.readline().strip()}"
    monkeypatch.setenv("DISPLAY", name)
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    yield name
    server.terminate()
    server.wait()


class Typist(threading.Thread):
    """Presses real keys as soon as the window shows something."""

    def __init__(self, display, keys):
        super().__init__(daemon=True)
        self.display, self.keys, self.colours = display, keys, set()
        self.may_begin = threading.Event()

    def run(self):
        from PIL import ImageGrab, features

        self.may_begin.wait(60)
        for key in self.keys[:-1]:
            subprocess.run(["xdotool", "key", key], check=True, timeout=30)
            time.sleep(0.1)
        if features.check("xcb"):
            picture = ImageGrab.grab(xdisplay=self.display).convert("RGB")
            self.colours = {colour for _, colour in picture.getcolors(2**24)}
        subprocess.run(["xdotool", "key", self.keys[-1]], check=True, timeout=30)


@pytest.mark.slow
def test_real_keys_on_a_real_display(display, monkeypatch):
    typist = Typist(display, ["1", "Up", "Up", "minus", "space", "M", "q"])
    pressed, flip, controls = [], pygame.display.flip, []

    class Recorded(Controls):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            controls.append(self)

        def press(self, key, *, now=0.0):
            pressed.append(key)
            super().press(key, now=now)

    def show():
        flip()
        typist.may_begin.set()

    monkeypatch.setattr(viewer, "Controls", Recorded)
    monkeypatch.setattr(viewer.pygame.display, "flip", show)
    typist.start()
    view_skills(walker(), point_vec(length=10**6, **PICTURES), discriminator=compass())
    typist.join(60)
    assert pressed == ["1", "up", "up", "-", "space", "left shift", "M", "q"]
    (seen,) = controls
    assert (seen.skill, seen.second, seen.share, seen.speed) == (1, 0, 20, 0.5)
    assert seen.is_paused and not seen.is_open
    if typist.colours:  # the environment's paper and point, and the panel's
        assert {(255, 255, 255), (200, 30, 30), viewer.PAPER, viewer.INK} <= typist.colours
