"""Nothing needs a POSIX system, but for what is listed here with the reason why it may."""

import ast
from pathlib import Path

import pytest

import sb3_diayn

ROOT = Path(__file__).parents[2]
SOURCES = [*Path(sb3_diayn.__file__).parent.rglob("*.py"), *(ROOT / "examples").glob("*.py")]
TESTS = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]

MODULES = set("fcntl grp posix pty pwd resource syslog termios tty".split())
NAMES = {
    "os": set(
        "chown fork forkpty geteuid getgid getloadavg getpgid getuid killpg mkfifo nice openpty "
        "sched_getaffinity sched_setaffinity setpgid setsid statvfs symlink sysconf uname".split()
    )
    | {"rename"},  # os.replace also replaces on Windows
    "signal": set(
        "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 "
        "SIGXCPU SIGXFSZ alarm pause pthread_kill setitimer".split()
    ),
}
METHODS = {"symlink_to", "hardlink_to", "rename"}  # Path.rename as os.rename
KEYWORDS = {"preexec_fn", "start_new_session", "process_group", "pass_fds"}
CONSTANTS = ("/tmp", "/dev/", "/proc", "/etc", "/var", "/usr")
# What a file does of it, and where the guard is.
ALLOWED = {
    ("provenance.py", "'/proc/cpuinfo'"): "falls back on platform.processor()",
    ("parallel.py", "os.sched_getaffinity"): "where it exists; else os.cpu_count()",
    ("benchmarks/soak.py", "'/proc'"): "a benchmark that says: Linux",
    ("benchmarks/soak.py", "os.sysconf"): "the same",
    ("integration/test_crashes.py", "import resource"): "in a test that is skipped without fork",
    ("integration/test_crashes.py", "signal.SIGXFSZ"): "the same",
    ("integration/test_crashes.py", "os.killpg"): "skipped on Windows",
    ("integration/test_crashes.py", "start_new_session="): "the same",
    ("integration/test_crashes.py", ".rename()"): "to a name that is free",
    ("integration/test_crashes.py", "signal.SIGKILL"): "skipped on Windows",
    ("integration/test_crashes.py", "signal.SIGHUP"): "the same",
    ("integration/test_crashes.py", "os.openpty"): "the same",
    ("evaluation/test_viewer.py", "os.uname"): "in a test that needs Xvfb",
    ("evaluation/test_viewer.py", "pass_fds="): "the same",
    ("zoo/test_provenance.py", ".rename()"): "to a name that is free",
    ("benchmarks/startup.py", "import resource"): "a benchmark that says: Linux",
    ("helpers/bounded_load.py", "import resource"): "its test is skipped without fork",
    ("helpers/bounded_load.py", "os.fork"): "the same",
    ("helpers/bounded_load.py", "'/proc/self/statm'"): "the same",
    (
        "cli/test_sweep_cluster.py",
        "signal.SIGKILL",
    ): "expensive; Dask's workers, skipped on Windows",
}


def findings(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {f"import {alias.name}" for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found.add(f"import {node.module}")
        elif isinstance(node, ast.ImportFrom) and node.module in NAMES:
            names = {alias.name for alias in node.names} & NAMES[node.module]
            found |= {f"{node.module}.{name}" for name in names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NAMES.get(node.value.id, ()):
                found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Constant) and str(node.value).startswith(CONSTANTS):
            found.add(repr(node.value))
        if isinstance(node, ast.Call):
            found |= findings_of_call(node)
    return found


def findings_of_call(node: ast.Call) -> set[str]:
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    found = {f"{name}=" for name in KEYWORDS & set(given)}
    method = given.get("start_method")
    if isinstance(method, ast.Constant) and method.value == "fork":
        found.add("start_method='fork'")
    attribute = node.func.attr if isinstance(node.func, ast.Attribute) else None
    if attribute in METHODS and len(node.args) == 1 and not node.keywords:
        found.add(f".{attribute}()")
    return found


def texts_without_encoding(tree: ast.AST) -> set[int]:
    """Lines that read or write text as the machine likes: UTF-8 here, cp1252 on Windows."""
    lines = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        position = {"read_text": 0, "write_text": 1, "open": 3}.get(str(name))
        is_builtin = isinstance(node.func, ast.Name)
        if position is None or (name == "open" and not is_builtin):
            continue
        mode = ast.unparse(node.args[1]) if name == "open" and len(node.args) > 1 else "''"
        named = {keyword.arg for keyword in node.keywords}
        if "b" not in mode and "encoding" not in named and len(node.args) <= position:
            lines.add(node.lineno)
    return lines


def name_of(path: Path) -> str:
    is_test = path in TESTS
    return path.relative_to(ROOT / "tests").as_posix() if is_test else path.name


@pytest.mark.slow
@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name_of)
def test_nothing_needs_posix_without_a_guard(path):
    found = findings(ast.parse(path.read_text(encoding="utf-8")))
    assert found == {what for file, what in ALLOWED if file == name_of(path)}


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_text_has_an_encoding(path):
    assert texts_without_encoding(ast.parse(path.read_text(encoding="utf-8"))) == set()


def test_the_search_finds_what_it_is_for():
    text = """
import os, resource
from signal import SIGKILL
os.fork(); os.replace("a", "b"); "a".replace("a", "b")
Popen(x, start_new_session=True); SubprocVecEnv(e, start_method="fork")
path.rename(other); frame.rename(columns=short); Path("/tmp/x")
"""
    assert findings(ast.parse(text)) == {
        "import resource",
        "signal.SIGKILL",
        "os.fork",
        "start_new_session=",
        "start_method='fork'",
        ".rename()",
        "'/tmp/x'",
    }
    text = 'open(f)\nopen(f, "rb")\np.read_text()\np.read_text(encoding="utf-8")\np.write_text(t)\n'
    assert texts_without_encoding(ast.parse(text)) == {1, 3, 5}
