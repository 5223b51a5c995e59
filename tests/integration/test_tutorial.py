"""The tutorial runs from top to bottom, and its page is the notebook."""

import re

import pytest

from docs.tables.tutorial import NOTEBOOK, PAGE, as_page

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_page_is_the_notebook():
    assert PAGE.read_text(encoding="utf-8") == as_page(), "run python -m docs.tables.tutorial"


def test_the_notebook_is_valid_and_saved_without_results(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_promises(notebook, tmp_path):
    pytest.importorskip("seaborn")
    pytest.importorskip("imageio_ffmpeg")
    (balloon,) = [cell for cell in notebook.cells if "24_000" in cell.source]
    balloon.source = balloon.source.replace("24_000", "2_400")  # nothing below asks for its skills
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not any(output.output_type == "error" for output in outputs)
    pages = [output.data.get("text/html", "") for output in outputs if "data" in output]
    pictures = [output for output in outputs if "data" in output and "image/png" in output.data]
    assert sum("<table>" in page for page in pages) == len(pictures) == 2
    assert sum(page.count("data:video/mp4;base64,") for page in pages) == 2 * 5
    text = "".join(output.text for output in outputs if output.get("name") == "stdout")
    before, after = (int(found) for found in re.findall(r"goal in (\d+)% of", text))
    assert 0 <= before <= after, text  # the fine-tuned skill is no worse
    assert (tmp_path / "exported.zip").is_file()
