"""The pages in a real browser: what is pointed at lights up, films play, and nothing sticks out."""

import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO

pytest.importorskip("jinja2")
pytest.importorskip("seaborn")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("playwright.sync_api")

from playwright.sync_api import sync_playwright

from sb3_diayn import DIAYNCallback, DIAYNWrapper, SkillDashboardCallback
from sb3_diayn.evaluation import dashboard
from sb3_diayn.evaluation.comparison import write_comparison
from sb3_diayn.evaluation.report import Description, write_report
from sb3_diayn.evaluation.video import write_film
from tests.evaluation.evaluations import straight_walks

pytestmark = pytest.mark.slow

K = 12
FILMED = (2, 7)
WIDTHS = (390, 1280)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ABOUT = Description(
    title="HalfCheetah-v5_1_with_a_rather_long_name_that_has_no_place_to_break",
    algo="SAC",
    env_id="Point-v0",
    facts={"Command": "sb3-diayn train " + "--hyperparams DIAYNCallback.net_arch:[64,64] " * 5},
    hyperparams={"policy_kwargs": "dict(net_arch=[256, 256])" * 6},
    play="sb3-diayn play logs/sac/HalfCheetah-v5_1",
    snippet="print('a line of code that is much longer than a telephone is wide', SKILL)",
)


@pytest.fixture(scope="module")
def browser():
    """Chromium as the system has it, or as Playwright has installed it."""
    with sync_playwright() as tools:
        own = Path(tools.chromium.executable_path)
        path = next(filter(None, map(shutil.which, BROWSERS)), own if own.exists() else None)
        if path is None:
            pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
        browser = tools.chromium.launch(executable_path=str(path), args=["--no-sandbox"])
        yield browser
        browser.close()


def make_films(folder):
    """A film of two skills, a second long."""
    films = {skill: folder / f"skill_{skill:02d}.mp4" for skill in FILMED}
    folder.mkdir()
    for skill, film in films.items():
        with write_film(film, (32, 32, 3), 10) as add:
            for step in range(10):
                add(np.full((32, 32, 3), 10 * skill + step, np.uint8))
    return films


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A report of skills whose returns fall from the first to the last, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    returns = np.zeros((K, 2)) - np.arange(K)[:, None]
    evaluation = straight_walks(K, info={"n_episodes": 2}, task_returns=returns)
    write_report(folder / "report", evaluation, description=ABOUT, films=make_films)
    films = {skill: folder / "report" / "films" / f"skill_{skill:02d}.mp4" for skill in FILMED}
    runs = {f"logs/sac/{'a' * 40}_{number}": evaluation for number in range(3)}
    write_comparison(folder / "comparison", runs, films=dict.fromkeys(runs, films))
    watch_training(folder / "live" / "index.html")
    return folder


def watch_training(page):
    """Write the page of a short training."""
    env = DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0", max_episode_steps=10), 3, skill="cycle")
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=32, seed=0, device="cpu")
    watching = SkillDashboardCallback(page, n_films=2)
    watching.update_seconds = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dashboard, "MAX_SHARE", 1e9)
        model.learn(32, callback=[DIAYNCallback(), watching])


@pytest.fixture(params=WIDTHS)
def width(request):
    return request.param


@pytest.fixture
def open_page(browser, folders):
    """Opens a page, without a network, and finds errors of its script at the end."""
    contexts, errors = [], []

    def open_page(name, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(error))
        page.on("request", lambda each: each.url.startswith("file:") or errors.append(each.url))
        page.goto((folders / name / "index.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


def skills_of(page, selector):
    return page.eval_on_selector_all(selector, "all => all.map(each => Number(each.dataset.skill))")


def wait_until_it_plays(page, selector):
    page.wait_for_function(
        "selector => document.querySelector(selector)?.currentTime > 0", arg=selector
    )


@pytest.mark.parametrize("name", ["report", "comparison", "live"])
def test_no_page_scrolls_sideways(open_page, name, width):
    page = open_page(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Not because something is cut off either: what is wider scrolls in a frame of its own.
    assert page.evaluate("getComputedStyle(document.body).overflowX") == "visible"


@pytest.mark.parametrize("what", ["tr", "li", ".lines use"])
def test_pointing_at_a_skill_highlights_it_everywhere(open_page, what, width):
    page = open_page("report", width)
    assert page.locator(".active").count() == 0
    page.dispatch_event(f'{what}[data-skill="7"]', "pointerover")
    assert set(skills_of(page, ".active")) == {7}
    names = page.eval_on_selector_all(".active", "all => all.map(each => each.tagName)")
    assert sorted(names) == ["A", "LI", "TR", "use", "use"]  # film, picture, row and path
    assert page.locator(".chosen-path").get_attribute("href") == "#path-7"
    page.wait_for_function("document.querySelector('#now h3').textContent === 'Skill 7'")
    assert page.locator("#now dd").first.text_content().startswith("\N{MINUS SIGN}7")
    wait_until_it_plays(page, "#now video")
    assert page.locator("#now video").get_attribute("src") == "films/skill_07.mp4"
    page.dispatch_event("h1", "pointerover")
    assert page.locator(".active").count() == 0
    assert page.locator(".chosen-path").get_attribute("href") is None


def test_the_mouse_finds_a_row_and_the_keyboard_a_picture(open_page):
    page = open_page("report")
    page.hover('tr[data-skill="4"] td:last-child')
    assert set(skills_of(page, ".active")) == {4}
    page.wait_for_function("document.querySelector('#now h3').textContent === 'Skill 4'")
    assert page.locator("#now video").is_hidden()  # nobody has filmed it
    page.focus('li[data-skill="9"] a')
    assert set(skills_of(page, ".active")) == {9}


def test_the_mouse_finds_a_thin_path(open_page):
    """Also next to it. Skill 11 is the steepest line, so there is no other on this side."""
    page = open_page("report")
    x, y = page.evaluate(
        """() => {
          const svg = document.querySelector("svg.paths");
          svg.scrollIntoView();
          const line = document.getElementById("path-11");
          const point = line.getPointAtLength(line.getTotalLength() / 8);
          const { x, y } = point.matrixTransform(svg.getScreenCTM());
          return [x, y];
        }"""
    )
    page.mouse.move(x - 2, y)
    page.wait_for_function("document.querySelector('tr.active')?.dataset.skill === '11'")


def test_headings_sort(open_page):
    page = open_page("report")
    assert skills_of(page, "tbody tr") == list(range(K))
    for expected in (list(range(K)), list(reversed(range(K)))):
        page.click("th >> text=task return")
        assert skills_of(page, "tbody tr") == expected
    assert page.locator("[aria-sort]").count() == 1
    page = open_page("comparison")
    page.click("th >> text=distinct")
    assert page.locator("[aria-sort=descending]").inner_text() == "distinct"


def test_a_film_is_played_in_a_dialog(open_page, width):
    page = open_page("report", width)
    page.click('.film a[data-skill="2"]')
    assert page.locator("dialog").is_visible()
    assert page.locator("#film-title").inner_text() == "Skill 2"
    wait_until_it_plays(page, "dialog video")
    page.click("dialog button")
    assert page.locator("dialog").is_hidden()
    assert page.evaluate("document.querySelector('dialog video').paused")


def test_films_of_runs_play_together(open_page):
    page = open_page("comparison")
    assert page.locator("video").count() == 3 * len(FILMED)
    page.click("text=Play all")
    page.wait_for_function(
        "[...document.querySelectorAll('video')].every(film => film.currentTime > 0)"
    )


def test_films_of_a_training_play_by_themselves(open_page):
    page = open_page("live")
    assert page.locator("video").count() == 2
    page.locator("video").first.scroll_into_view_if_needed()  # out of sight none begins
    wait_until_it_plays(page, "video")


def test_the_chosen_skill_is_in_the_commands(open_page):
    page = open_page("report")
    page.select_option("#chosen", "5")
    assert "--skill 5" in page.locator("pre").first.inner_text()


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_pages_can_be_read_without_javascript(open_page, name, width):
    page = open_page(name, width, java_script_enabled=False)
    assert page.locator("tbody tr").count() == (K if name == "report" else 3)
    assert page.locator("svg.paths").first.is_visible()
    assert page.locator("text=Play all").count() == 0 or page.locator("text=Play all").is_hidden()
    if name == "report":
        assert page.locator("#now h3").inner_text() == "Skill 0"  # the best


def test_who_wants_no_motion_gets_none(open_page):
    page = open_page("report", reduced_motion="reduce")
    page.dispatch_event('tr[data-skill="7"]', "pointerover")
    page.wait_for_function("document.querySelector('#now video').src.endsWith('skill_07.mp4')")
    assert page.evaluate("document.querySelector('#now video').paused")
