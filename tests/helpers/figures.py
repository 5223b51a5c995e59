"""Figures that nobody looks at."""

from pathlib import Path
from typing import Any

import pytest


def leave_undrawn(patch: pytest.MonkeyPatch) -> None:
    """
    Figures are set up, and their files are empty: drawing takes most of a report's time. On a live
    page figures are text, and they are drawn.
    """
    figure = pytest.importorskip("matplotlib.figure").Figure
    draw = figure.savefig

    def save(self: Any, file: Any, **options: Any) -> None:
        if isinstance(file, Path):
            file.touch()
        else:
            draw(self, file, **options)

    patch.setattr(figure, "savefig", save)
