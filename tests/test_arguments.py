import numpy as np
import pytest

from sb3_diayn.arguments import check_positive


def test_an_integer_of_numpy_becomes_python_s():
    assert type(check_positive("steps", np.int64(3))) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "2", None, np.array([1])])
def test_anything_else_is_refused_with_the_hint(value):
    with pytest.raises(ValueError, match=r"^steps=.* positive integer; expected .*1\. Ten do\.$"):
        check_positive("steps", value, "Ten do.")
    with pytest.raises(ValueError, match=r"an integer of at least 1\.$"):
        check_positive("steps", value)
