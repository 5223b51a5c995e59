"""Films are decoded again and looked at pixel by pixel."""

import base64
import re
import sys

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
import torch as th
from PIL import Image
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_diayn import DIAYNWrapper
from sb3_diayn.evaluation import video
from sb3_diayn.evaluation.trajectories import as_vec_env
from sb3_diayn.evaluation.video import (
    FilmStrip,
    RenderingError,
    record_grid,
    record_skills,
    require_rendering,
    save_poster,
    simplify_rendering,
    track_body,
    write_film,
)
from tests.helpers.envs import PointEnv

BAR = 12  # the caption of a 64 x 64 frame: letters of 8 pixels and half as much around them
DIRECTIONS = np.array([[1, 0], [-1, 0], [0, 1]], np.float32)


class Compass(SAC):
    """Skill 0 goes right, 1 goes left, 2 goes down the picture."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return DIRECTIONS[observation[:, 2:].argmax(axis=1)], state


class FallingEnv(PointEnv):
    """The episode ends early for a point that goes left."""

    def step(self, action):
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, obs[0] < -3.5, truncated, info


class BadEnv(PointEnv):
    """Renders what ``pictures`` says, in turn; an exception is raised."""

    def __init__(self, *pictures):
        super().__init__(length=10, render_mode="rgb_array")
        self.pictures = list(pictures)

    def render(self):
        picture = self.pictures.pop(0)
        if isinstance(picture, Exception):
            raise picture
        return picture


def make_env(env_class=PointEnv, length=10, render_mode="rgb_array"):
    return DIAYNWrapper(env_class(length=length, render_mode=render_mode), n_skills=3)


@pytest.fixture
def model():
    return Compass("MlpPolicy", make_env(), buffer_size=10, device="cpu")


def decode(file):
    """Frames of a film, shape ``(T, height, width, 3)``, and its frames per second."""
    reader = imageio_ffmpeg.read_frames(str(file))
    meta = next(reader)
    width, height = meta["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return np.stack(frames), meta


def red_point(picture):
    """Column and row of the middle of the point; the dimmed one is red too."""
    picture = picture.astype(int)
    rows, columns = np.nonzero(picture[..., 0] - picture[..., 1] > 60)
    return columns.mean(), rows.mean()


@pytest.mark.slow
def test_one_film_of_each_skill(model, tmp_path):
    films = record_skills(model, make_env(), tmp_path / "films")
    assert films == {k: tmp_path / "films" / f"skill_{k:02d}.mp4" for k in range(3)}
    frames = {}
    for skill, file in films.items():
        frames[skill], meta = decode(file)
        assert frames[skill].shape == (10, 64 + BAR, 64, 3)
        assert meta["fps"] == 20 and meta["codec"] == "h264"
        assert meta["pix_fmt"].startswith("yuv420p")
    # Ten steps cross 28 pixels, and the last frame shows the last action: 9 of them.
    assert red_point(frames[0][0]) == pytest.approx((32, 32 + BAR), abs=2)
    assert red_point(frames[0][-1]) == pytest.approx((32 + 25, 32 + BAR), abs=2)
    assert red_point(frames[1][-1]) == pytest.approx((32 - 25, 32 + BAR), abs=2)
    assert red_point(frames[2][-1]) == pytest.approx((32, 32 + 25 + BAR), abs=2)


@pytest.mark.slow
def test_the_caption_names_the_skill_and_counts_the_return(model, tmp_path):
    films = record_skills(model, make_env(), tmp_path, skills=[0, 1])
    bars = {skill: decode(file)[0][:, :BAR].astype(int) for skill, file in films.items()}
    assert abs(bars[0][0] - bars[1][0]).max() > 60
    assert abs(bars[0][0] - bars[0][-1]).max() > 60


def texts_of(model, folder, monkeypatch, length=10, **options):
    """What the captions of a film of skill 0 say."""
    texts, add_caption = [], video._add_caption
    monkeypatch.setattr(
        video, "_add_caption", lambda frame, text: texts.append(text) or add_caption(frame, text)
    )
    record_skills(model, make_env(length=length), folder, skills=[0], **options)
    return texts[1:]  # the first one measures the bar


def test_the_caption_tells_a_whole_episode_from_a_cut_one(model, tmp_path, monkeypatch):
    *before, last = texts_of(model, tmp_path, monkeypatch)
    assert not any("episode" in text or "cut" in text for text in before)
    assert re.fullmatch(r"skill 0  return \d+\.\d, whole episode", last)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"max_steps": 4}, {"max_seconds": 0.2}])
def test_the_caption_says_that_the_film_is_cut(model, tmp_path, monkeypatch, options):
    """Four steps of an environment with 20 frames per second are 0.2 seconds."""
    *before, last = texts_of(model, tmp_path, monkeypatch, **options)
    assert len(before) == 3 and last.endswith(", cut at 0.2 s")


def test_an_episode_that_ends_where_the_film_does_is_whole(model, tmp_path, monkeypatch):
    assert texts_of(model, tmp_path, monkeypatch, max_steps=10)[-1].endswith("whole episode")


def test_a_long_caption_fits():
    frame = np.zeros((64, 64, 3), np.uint8)
    bar = video._add_caption(frame, "skill 19  return -12345.6, cut at 10 s")[:-64]
    bright = np.flatnonzero((bar > 90).any(axis=(0, 2)))
    assert bar.shape[1] == 64 and 30 < bright[-1] < 62


@pytest.mark.slow
def test_a_progress_bar_counts_the_steps(model, tmp_path, capsys):
    """Also where an episode needs fewer frames: two skills, 12 steps at most, ten in each."""
    options = {"skills": [0, 1], "max_steps": 12, "progress_bar": True}
    record_skills(model, make_env(length=10), tmp_path, **options)
    assert "Filming: 100%" in (said := capsys.readouterr().err) and "24/24" in said
    record_skills(model, make_env(length=10), tmp_path, skills=[0])
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_chosen_skills_cut_short(model, tmp_path):
    films = record_skills(model, make_env(), tmp_path, skills=[2, 0], max_steps=4)
    assert list(films) == [2, 0]
    assert sorted(tmp_path.iterdir()) == sorted(films.values())
    assert len(decode(films[2])[0]) == 4


def test_a_gif_shows_fewer_frames_in_the_same_time(model, tmp_path, monkeypatch):
    monkeypatch.setitem(PointEnv.metadata, "render_fps", 50)
    films = record_skills(model, make_env(length=9), tmp_path, skills=[0], format="gif")
    with Image.open(films[0]) as film:
        durations = []
        for index in range(film.n_frames):
            film.seek(index)
            durations.append(film.info["duration"])
    # Steps 0, 2, 4, 6 and 8 of 20 ms each.
    assert durations == [40] * 5


@pytest.mark.slow
def test_the_last_frame_is_shown_even_if_frames_are_skipped(model, tmp_path, monkeypatch):
    monkeypatch.setitem(PointEnv.metadata, "render_fps", 100)
    films = record_skills(model, make_env(length=10), tmp_path, skills=[0])
    frames, meta = decode(films[0])
    # Steps 0, 4 and 8, and the last one with the whole return.
    assert len(frames) == 4 and meta["fps"] == 25
    assert abs(frames[-1][:BAR].astype(int) - frames[-2][:BAR]).max() > 60


@pytest.mark.slow
def test_vectorised_environments_and_normalised_observations(model, tmp_path):
    venv = VecNormalize(DummyVecEnv([make_env, make_env]), norm_reward=False, training=False)
    films = record_skills(model, venv, tmp_path, skills=[1])
    frames, _ = decode(films[1])
    assert len(frames) == 10
    assert red_point(frames[-1])[0] < 10


def test_everything_is_left_as_found(model, tmp_path):
    env = make_env()
    env.set_skill("cycle")
    model.policy.set_training_mode(True)
    th.manual_seed(3)
    expected = th.rand(1)
    th.manual_seed(3)
    numpy_state = np.random.get_state()[1].copy()
    record_skills(model, env, tmp_path, skills=[0], deterministic=False)
    assert env.skill_rule == "cycle"
    assert model.policy.training
    assert th.rand(1) == expected
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.slow
def test_an_environment_that_draws_into_the_same_array(model, tmp_path):
    """A frame shows the state before its action, also where the step draws the next one."""

    class SameFrame(PointEnv):
        frame = np.zeros((64, 64, 3), np.uint8)

        def step(self, action):
            result = super().step(action)
            self.render()
            return result

        def render(self):
            self.frame[:] = super().render()
            return self.frame

    films = [
        record_skills(model, make_env(cls), tmp_path / cls.__name__, skills=[0])[0]
        for cls in (PointEnv, SameFrame)
    ]
    assert films[0].read_bytes() == films[1].read_bytes()


@pytest.mark.slow
def test_the_same_seed_films_the_same_episode(model, tmp_path):
    files = [record_skills(model, make_env(), tmp_path / name, skills=[0])[0] for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_the_grid_holds_the_last_frame_dimmed(model, tmp_path):
    films = record_skills(model, make_env(FallingEnv), tmp_path)
    assert len(decode(films[1])[0]) == 4
    grid = record_grid(films, tmp_path / "more" / "grid.mp4")
    frames, meta = decode(grid)
    height = 64 + BAR
    assert frames.shape == (10, 2 * height, 128, 3) and meta["fps"] == 20
    tiles = [frames[:, :height, :64], frames[:, :height, 64:], frames[:, height:, :64]]
    for skill, place in enumerate([(57, 44), (22, 44), (32, 69)]):
        assert red_point(tiles[skill][-1]) == pytest.approx(place, abs=2)
    white = [tile[:, 16, 5].mean(axis=1) for tile in tiles]
    assert white[0].min() > 240 and white[2].min() > 240
    assert white[1][:4].min() > 240
    assert white[1][4:] == pytest.approx(153, abs=6)
    assert frames[:, height + BAR :, 70:].max() < 16


@pytest.mark.slow
def test_the_grid_is_as_wide_as_allowed(model, tmp_path):
    films = record_skills(model, make_env(), tmp_path, max_steps=2)
    wide = {index: films[index % 3] for index in range(7)}
    frames, _ = decode(record_grid(wide, tmp_path / "grid.mp4", max_width=100))
    # Three columns of 33 pixels, made even; 64 x 76 becomes 32 x 38.
    assert frames.shape == (2, 3 * 38, 3 * 32, 3)


@pytest.mark.slow
def test_a_grid_as_gif_ends_with_the_last_frame(model, tmp_path, monkeypatch):
    monkeypatch.setitem(PointEnv.metadata, "render_fps", 30)
    films = record_skills(model, make_env(), tmp_path, skills=[0])
    grid = record_grid(films, tmp_path / "grid.gif")
    with Image.open(grid) as film:
        assert film.size == (64, 64 + BAR)
        assert film.n_frames == 6
        film.seek(5)
        last = np.asarray(film.convert("RGB"))
    assert red_point(last) == pytest.approx((57, 44), abs=1)


@pytest.mark.parametrize(
    "pictures, message",
    [
        ([None], "NoneType.*expected a uint8 array"),
        ([np.zeros((8, 8, 3))], r"shape \(8, 8, 3\), float64.*expected a uint8"),
        ([np.zeros((8, 8), np.uint8)], r"shape \(8, 8\).*expected a uint8 array"),
        ([gym.error.DependencyNotInstalled("no pygame")], r"no pygame.*sb3-diayn\[box2d\]"),
        ([RuntimeError("mujoco: no OpenGL context")], "MUJOCO_GL=egl.*libegl1"),
        ([RuntimeError("window lost")], "RuntimeError.*window lost.*by itself"),
    ],
)
def test_what_hinders_rendering_is_named_at_once(model, tmp_path, pictures, message):
    env = DIAYNWrapper(BadEnv(*pictures), n_skills=3)
    with pytest.raises(RenderingError, match=message):
        record_skills(model, env, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_render_mode_is_refused():
    with pytest.raises(RenderingError, match=r"render_mode=None.*render_mode='rgb_array'"):
        require_rendering(make_env(render_mode=None))
    assert require_rendering(make_env()).shape == (64, 64, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "picture, message",
    [
        (RuntimeError("window lost"), "window lost"),
        (np.zeros((20, 16, 3), np.uint8), r"\(.*16, 3\).*expected one size"),
    ],
)
def test_a_failure_midway_leaves_the_old_film_whole(model, tmp_path, picture, message):
    films = record_skills(model, make_env(), tmp_path, skills=[0])
    before = films[0].read_bytes()
    good = np.zeros((16, 16, 3), np.uint8)
    env = DIAYNWrapper(BadEnv(good, good, good, picture), n_skills=3, skill="cycle")
    with pytest.raises(RenderingError, match=message):
        record_skills(model, env, tmp_path, skills=[0])
    assert list(tmp_path.iterdir()) == [films[0]]
    assert films[0].read_bytes() == before
    assert env.skill_rule == "cycle"


@pytest.mark.slow
@pytest.mark.parametrize("format", ["mp4", "gif"])
@pytest.mark.parametrize(
    "trouble",
    [
        'ulimit -f 1; exec "$FFMPEG" "$@"',  # a full disk: no file grows beyond a kilobyte
        'head -c 60000 | "$FFMPEG" "$@"',  # four frames of 64 x 76 arrive, the rest gets lost
        'for file; do :; done; wc -c > "$file"; exit 1',  # all frames arrive, no film comes out
    ],
)
def test_a_writer_that_breaks_leaves_the_old_film_whole(
    model, tmp_path, monkeypatch, format, trouble
):
    films = record_skills(model, make_env(), tmp_path, skills=[0], format=format)
    before = films[0].read_bytes()
    ffmpeg = tmp_path.parent / "ffmpeg"
    reading = 'case "$*" in *"-i -"*) ;; *) exec "$FFMPEG" "$@";; esac'  # as it should
    ffmpeg.write_text(f"#!/bin/bash\n{reading}\n{trouble}\n")
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("FFMPEG", imageio_ffmpeg.get_ffmpeg_exe())
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(ffmpeg))
    with pytest.raises(OSError, match=r"ffmpeg failed to write .*skill_00\.(mp4|gif)"):
        record_skills(model, make_env(), tmp_path, skills=[0], format=format)
    assert list(tmp_path.iterdir()) == [films[0]]
    assert films[0].read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("format", ["mp4", "gif"])
def test_odd_sizes_lose_a_row_and_a_column(tmp_path, format):
    with write_film(tmp_path / f"odd.{format}", (33, 19, 3), 10) as add:
        for _ in range(3):
            add(np.full((33, 19, 3), 200, np.uint8))
    frames, meta = decode(tmp_path / f"odd.{format}")
    assert frames.shape == (3, 32, 18, 3) and meta["fps"] == 10
    assert frames == pytest.approx(200, abs=4)


@pytest.mark.slow
def test_a_poster_is_a_typical_frame(tmp_path):
    film = tmp_path / "film.mp4"
    with write_film(film, (100, 120, 3), 10) as add:
        for brightness in (0, 100, 100, 100, 255):
            add(np.full((100, 120, 3), brightness, np.uint8))
    assert save_poster(film) == tmp_path / "film.jpg"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "film.jpg", film]
    with Image.open(tmp_path / "film.jpg") as poster:
        assert poster.size == (240, 200)
        assert np.asarray(poster) == pytest.approx(100, abs=4)


@pytest.mark.slow
def test_a_film_that_is_not_whole_is_refused(model, tmp_path):
    films = record_skills(model, make_env(), tmp_path, skills=[0, 1])
    films[1].write_bytes(films[1].read_bytes()[:200])
    with pytest.raises(OSError, match="record it again"):
        record_grid(films, tmp_path / "grid.mp4")
    with pytest.raises(OSError, match="record it again"):
        save_poster(films[1])
    assert sorted(tmp_path.iterdir()) == sorted(films.values())


@pytest.mark.slow
def test_scaled_films_are_no_reason_to_warn(model, tmp_path, caplog, capfd):
    films = record_skills(model, make_env(), tmp_path, max_steps=2)
    save_poster(record_grid(films, tmp_path / "grid.mp4", max_width=100))
    assert caplog.records == []
    assert capfd.readouterr().err == ""


def test_the_missing_extra_is_named(model, tmp_path, monkeypatch):
    films = record_skills(model, make_env(), tmp_path, skills=[0])
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"pip install 'sb3-diayn\[report\]'"):
        record_skills(model, make_env(), tmp_path)
    with pytest.raises(ImportError, match=r"pip install 'sb3-diayn\[report\]'"):
        record_grid(films, tmp_path / "grid.mp4")


def test_importing_needs_no_writer(monkeypatch):
    for name in ("imageio_ffmpeg", "moviepy", "imageio"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "sb3_diayn.evaluation.video")
    import sb3_diayn.evaluation.video

    monkeypatch.setattr(sys.modules["sb3_diayn.evaluation"], "video", sb3_diayn.evaluation.video)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"max_steps": 0}, "max_steps=0"),
        ({"max_seconds": 0}, "max_seconds=0"),
        ({"max_width": 0}, "max_width=0"),
        ({"format": "avi"}, "format='avi'.*mp4 or gif"),
        ({"skills": [3]}, "skill=3"),
    ],
)
def test_arguments_are_checked(model, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        record_skills(model, make_env(), tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_arguments_of_the_grid_are_checked(model, tmp_path):
    films = record_skills(model, make_env(), tmp_path, skills=[0, 1], max_steps=1)
    with pytest.raises(ValueError, match=r"films=\{\}"):
        record_grid({}, tmp_path / "grid.mp4")
    with pytest.raises(ValueError, match=r"file=.*avi'.*\.mp4 or \.gif"):
        record_grid(films, tmp_path / "grid.avi")
    with pytest.raises(ValueError, match=r"max_width=31.*expected 32"):
        record_grid(films, tmp_path / "grid.mp4", max_width=31)


@pytest.mark.parametrize(
    ("env_id", "options", "camera"),
    [
        ("HalfCheetah-v5", {}, 0),
        ("HalfCheetah-v5", {"camera_id": -1}, -1),
        ("HalfCheetah-v5", {"default_camera_config": {"distance": 9.0}}, -1),
        ("Reacher-v5", {}, -1),  # its model has no camera that tracks
    ],
)
def test_the_camera_of_a_body_goes_along(env_id, options, camera):
    """Number 0 of HalfCheetah's model tracks it, -1 stands still."""
    env = DIAYNWrapper(gym.make(env_id, render_mode="rgb_array", **options), n_skills=3)
    track_body(as_vec_env(env))
    assert env.unwrapped.mujoco_renderer.camera_id == camera
    env.close()


def test_other_environments_have_no_such_camera():
    track_body(as_vec_env(make_env()))


@pytest.mark.parametrize(
    ("options", "max_width", "size"),
    [({}, 100, (100, 100)), ({}, 1000, (480, 480)), ({"width": 64, "height": 32}, 20, (64, 32))],
)
def test_mujoco_draws_small_pictures(options, max_width, size):
    env = DIAYNWrapper(gym.make("Hopper-v5", render_mode="rgb_array", **options), n_skills=3)
    simplify_rendering(as_vec_env(env), max_width)
    renderer = env.unwrapped.mujoco_renderer
    assert (renderer.width, renderer.height) == size
    assert renderer.model.vis.quality.shadowsize == 0
    env.close()


def test_simple_rendering_changes_nothing_but_pictures():
    def states(simplify):
        env = gym.make("Hopper-v5", render_mode="rgb_array")
        if simplify:
            simplify_rendering(as_vec_env(DIAYNWrapper(env, n_skills=3)), 100)
        env.reset(seed=0)
        env.action_space.seed(0)
        found = [env.step(env.action_space.sample())[0] for _ in range(50)]
        env.close()
        return np.stack(found)

    assert np.array_equal(states(False), states(True))


def test_other_environments_draw_as_they_do():
    simplify_rendering(as_vec_env(make_env()), 10)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["mp4", "gif"])
def test_a_strip_carries_its_films(model, tmp_path, format):
    films = record_skills(
        model, make_env(length=4), tmp_path, skills=[2, 0], max_steps=2, format=format
    )
    contents = [film.read_bytes() for film in films.values()]
    strip = FilmStrip(films, width=99)
    for film in films.values():
        film.unlink()
    assert repr(strip) == f"FilmStrip(skill_02.{format}, skill_00.{format})"
    page = strip._repr_html_()
    embedded = re.findall(r'src="data:(\w+/\w+);base64,([^"]+)"', page)
    kind = {"mp4": "video/mp4", "gif": "image/gif"}[format]
    assert [(kind, content) for content in contents] == [
        (found, base64.b64decode(text)) for found, text in embedded
    ]
    assert page.count('width="99"') == 2


def test_a_strip_of_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"none\.mp4"):
        FilmStrip({0: tmp_path / "none.mp4"})
    with pytest.raises(ValueError, match="width=0 is not a positive integer; expected"):
        FilmStrip({}, width=0)
