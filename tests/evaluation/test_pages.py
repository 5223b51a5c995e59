"""What pages share: numbers, and texts without folders of the machine that made them."""

import pytest

from sb3_diayn.evaluation.pages import without_folders


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/logs/sac", "sac"),
        (
            "sb3-diayn train -f /home/me/logs --conf-file=/a/b.yml",
            "sb3-diayn train -f logs --conf-file=b.yml",
        ),
        ("{'xml_file': '/home/me/ant.xml'}", "{'xml_file': 'ant.xml'}"),
        (r"C:\Users\me\model.zip", "model.zip"),
        ("[Errno 28] No space: '/tmp/x'", "[Errno 28] No space: 'x'"),
        ("logs/sac/Hopper-v5_1", "logs/sac/Hopper-v5_1"),
        ("../logs/sac", "../logs/sac"),
        ("sb3_diayn/PointBox-v0", "sb3_diayn/PointBox-v0"),
        ("https://arxiv.org/abs/1802.06070", "https://arxiv.org/abs/1802.06070"),
        ("1 / 2 and 3/4", "1 / 2 and 3/4"),
    ],
)
def test_texts_without_folders(text, shown):
    assert without_folders(text) == shown
