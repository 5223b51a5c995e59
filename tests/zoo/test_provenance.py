"""What reports tell of a run: names in it are text, whatever they hold, and its code plays it."""

import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_diayn import DIAYNWrapper
from sb3_diayn.evaluation import SkillPolicy
from sb3_diayn.evaluation.report import Description, write_report
from sb3_diayn.zoo.finding import find_run
from sb3_diayn.zoo.provenance import describe, describe_zip
from sb3_diayn.zoo.runs import Run
from tests.evaluation.evaluations import straight_walks
from tests.helpers.models import make_callback, make_ppo, recurrent
from tests.helpers.runs import ENV

# -- names of strangers ------------------------------------------------------------------------

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "block": "<div onclick=alert(1)>\n\n<details open ontoggle=alert(1)>",
    "link": "[x](javascript:alert(1)) ![x](http://evil/x.png) [y]\n\n[y]: javascript:alert(1)",
    "angle link": "<http://evil> <javascript:alert(1)> www.evil.com http://evil a@evil.com",
    "backticks": "``` x ` <b>`b`</b> ```\n```\n<script>\n~~~\n<script>",
    "table": "a | b |\n|---|---|\n| <b>x</b> | **y** |",
    "lines": "x\n# heading\n\n- item\n\n> quote\n\n---\n\n1. one\r<b>\u2028<b>\x0b<b>",
    "emphasis": "**bold** _em_ __strong__ ~~gone~~ ***x*** _a_b_ $x^2$",
    "attributes": "x {: onclick=alert(1) } {#id .class onclick=alert(1)}",
    "entities": "&lt;script&gt; &#60;script&#62; &amp; \\<script\\> \\`",
    "control": "\x02wzxhzdk:0\x03 \x02amp\x03 \x00 \u202e",
    "yaml": "---\na: [\n'\": *x &y !!python/object:os.system\n---",
    "template": "{{ 7 * 7 }} {% raw %}",
}
RENDERERS = {}
try:
    import markdown

    EXTENSIONS = ["extra", "admonition", "toc", "sane_lists", "nl2br"]
    RENDERERS["markdown"] = markdown.markdown
    RENDERERS["markdown with fences"] = lambda text: markdown.markdown(
        text, extensions=["tables", "fenced_code"]
    )
    RENDERERS["markdown with all"] = lambda text: markdown.markdown(text, extensions=EXTENSIONS)
except ImportError:  # it comes with the tools of the documentation
    pass
try:
    from markdown_it import MarkdownIt

    RENDERERS["CommonMark"] = MarkdownIt("commonmark").render
    RENDERERS["GitHub's"] = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render
    RENDERERS["without HTML"] = MarkdownIt("commonmark", {"html": False}).enable("table").render
except ImportError:  # it comes with rich
    pass
TAGS = set("h1 h2 h3 p br table thead tbody tr th td ul li strong pre code img".split())
ATTRIBUTES = {"src", "alt", "class", "id", "style"}  # the last three by renderers themselves


class Page(HTMLParser):
    """Elements, with their attributes, and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def run_named(name, folder):
    """A run in which everything that can come from a stranger is ``name``."""
    stats_path = folder / "run_1" / "Env"
    stats_path.mkdir(parents=True)
    (stats_path / "args.yml").write_text(yaml.dump({"seed": name}))
    (stats_path / "command.txt").write_text(name)
    zipped = folder / "run_1" / "Env.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("system_info.txt", f"- Python: {name}\n- PyTorch: {name}")
    run = Run(
        model_path=zipped,
        algo="SAC",
        env_id=name,
        n_skills=3,
        hyperparams={"env_wrapper": "sb3_diayn.DIAYNWrapper", name: name, "policy": [name]},
        env_kwargs={name: name},
        stats_path=stats_path,
        folder=folder / "run_1",
        gym_packages=[name],
    )
    run.state = {"options": {"obs_function": name, name: [name]}}
    return run


def evaluation_named(name):
    """An evaluation whose words are ``name``."""
    info = {"coordinates": [name, name], "why_no_held_out": name, "parts": [name, name]}
    evaluation = straight_walks(3, info=info | {"num_timesteps": 50_000, "n_episodes": 2})
    evaluation.held_out_log_q[:] = np.nan
    evaluation.importance[:] = [3.0, 0.0]
    return evaluation


def check_elements(page, files):
    """No element and no attribute is a name's."""
    for tag, attributes in page.elements:
        assert tag in TAGS and set(attributes) <= ATTRIBUTES, (tag, attributes)
        assert attributes.get("src") in (files if tag == "img" else [None]), attributes


def words(text):
    """Text without white space, and without what no page shows."""
    return "".join(letter for letter in text if letter.isprintable() and letter != " ")


def texts_of(name, folder):
    """``report.md``, the model card and the page of a run with such names."""
    with pytest.MonkeyPatch.context() as patch:  # drawing has tests of its own
        figures = {"paths.png": "Paths"}
        patch.setattr("sb3_diayn.evaluation.report.save_figures", lambda *_, **__: figures)
        run = run_named(name, folder)
        given = Description(algo=name, env_id=name, title=name, facts={name: name}, snippet=name)
        descriptions = {"own": (describe(run, f"logs/{name}"), describe_zip(run))}
        descriptions["other"] = given, given
        for kind, (about, card) in descriptions.items():
            write_report(folder / kind, evaluation_named(name), description=about, card=card)
    return {
        f"{kind} {file}": (folder / kind / file).read_text(encoding="utf-8")
        for kind in descriptions
        for file in ("report.md", "README.md", "index.html")
    }


@pytest.fixture(scope="module", params=HOSTILE)
def named(request, tmp_path_factory):
    """A hostile name, and all texts about a run with such names."""
    pytest.importorskip("jinja2")
    pytest.importorskip("huggingface_hub")
    name = HOSTILE[request.param]
    return name, texts_of(name, tmp_path_factory.mktemp("named"))


@pytest.mark.slow
@pytest.mark.parametrize("render", RENDERERS.values(), ids=RENDERERS)
def test_no_element_of_a_report_comes_from_a_name(named, render):
    name, texts = named
    for file, text in texts.items():
        if file.endswith("report.md"):
            page = Page(render(text))
            check_elements(page, ["paths.png"])
            assert words(name) in words(page.text)  # readers see it as it is
        elif file.endswith("README.md"):
            check_elements(Page(render(text.split("\n---\n", 1)[1])), ["paths.png"])


@pytest.mark.slow
def test_no_element_of_a_page_comes_from_a_name(named, tmp_path):
    name, texts = named
    plain = texts_of("plain", tmp_path)
    for file, text in texts.items():
        if file.endswith("index.html"):
            page = Page(text)
            assert page.elements == Page(plain[file]).elements
            assert words(name) in words(page.text)


@pytest.mark.slow
def test_metadata_hold_a_name_as_a_tag(named):
    name, texts = named
    for file, text in texts.items():
        if file.endswith("README.md"):
            head = text.removeprefix("---\n").split("\n---\n", 1)[0]
            assert not set("<>`|[]\\*") & set(head), head
            assert yaml.safe_load(head)["tags"][0] == re.sub(r"[^\w./:+-]+", "_", name)


# -- places ------------------------------------------------------------------------------------


def run_at(folder):
    """A run at this place, whose options and command name folders of its machine."""
    run = run_named("x", folder.parent)
    folder.parent.joinpath("run_1").rename(folder)
    run.stats_path, run.folder = folder / "Env", folder
    run.model_path, run.env_id = folder / "Env.zip", "Env"
    run.env_kwargs = {"xml_file": "/home/me/ant.xml"}
    run.hyperparams |= {"tensorboard_log": "/home/me/board", "learning_rate": 0.1}
    (run.stats_path / "command.txt").write_text("/opt/python /opt/sb3-diayn train -f /home/me/logs")
    return run


@pytest.mark.parametrize("inside", [True, False])
def test_no_text_names_a_folder_of_the_machine(tmp_path, monkeypatch, inside):
    """As typed where that is in the working folder, and from the log folder on elsewhere."""
    folder = tmp_path / "logs" / "sac" / "Env_1"
    folder.parent.mkdir(parents=True)
    run = run_at(folder)
    if inside:
        monkeypatch.chdir(tmp_path)
    about = describe(run, str(folder))
    assert about.play == "sb3-diayn play logs/sac/Env_1"
    assert " -f logs --exp-id 1" in about.enjoy
    assert "logs/sac/Env_1" in about.snippet
    assert about.place == "logs"
    assert about.facts["Command"] == "sb3-diayn train -f logs"
    assert about.facts["Environment"] == "Env with {'xml_file': 'ant.xml'}"
    assert about.hyperparams["tensorboard_log"] == "board"
    assert about.hyperparams["learning_rate"] == 0.1
    assert str(tmp_path) not in repr(about) and "/home" not in repr(about)


def test_a_run_that_is_named_from_within_is_named_from_its_log_folder(tmp_path, monkeypatch):
    folder = tmp_path / "logs" / "sac" / "Env_1"
    folder.parent.mkdir(parents=True)
    run = run_at(folder)
    monkeypatch.chdir(folder)
    about = describe(run, ".")
    assert about.play == "sb3-diayn play logs/sac/Env_1" and about.place == "logs"


# -- code that plays a run ---------------------------------------------------------------------


def run_snippet(run, name, monkeypatch):
    """Run the code that a report shows, for skill 1, in the folder in which it works."""
    about, names = describe(run, name), {}
    monkeypatch.chdir(Path(name).parent)
    assert about.place == Path(name).name
    exec(about.snippet.replace("SKILL", "1"), names)
    assert names["done"]
    return names


@pytest.mark.slow
def test_the_code_remembers_where_the_policy_does(tmp_path, monkeypatch):
    env = DIAYNWrapper(gym.make(ENV, max_episode_steps=6), 2)
    model = recurrent(env)
    model.n_steps = model.rollout_buffer.buffer_size = 64
    model.learn(64, callback=make_callback())
    model.save(tmp_path / "recurrent.zip")
    run = find_run(tmp_path / "recurrent.zip", env_kwargs={"max_episode_steps": 6})
    names = run_snippet(run, str(tmp_path / "recurrent.zip"), monkeypatch)
    assert isinstance(names["policy"], SkillPolicy) and names["state"] is not None
    assert names["env"].get_wrapper_attr("skill") == 1


def test_the_code_finds_the_statistics_of_a_zip(tmp_path, monkeypatch):
    env = VecNormalize(DummyVecEnv([lambda: DIAYNWrapper(gym.make(ENV), 2)]), norm_reward=False)
    model = make_ppo(env)
    model.learn(24, callback=make_callback())
    model.save(tmp_path / "ppo.zip")
    env.save(str(tmp_path / "vecnormalize.pkl"))
    run = find_run(tmp_path / "ppo.zip", env_kwargs={"max_episode_steps": 6})
    names = run_snippet(run, str(tmp_path / "ppo.zip"), monkeypatch)
    assert names["env"].get_attr("skill") == [1]
    assert isinstance(names["env"], VecNormalize)
