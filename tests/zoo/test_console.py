"""What a training prints before it begins."""

import builtins

import pytest

pytest.importorskip("rl_zoo3")

from rl_zoo3 import exp_manager

from sb3_diayn.zoo.console import quiet_zoo


def test_the_zoo_is_quiet_within_the_block_only(capsys):
    before = dict(vars(exp_manager))
    with quiet_zoo():
        exp_manager.print("hyperparameters")
        exp_manager.pprint({})
    assert capsys.readouterr().out == ""
    assert vars(exp_manager) == before


def test_a_builtin_that_is_replaced_for_a_while_does_not_stay_in_the_zoo(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "print", lambda *words: None)
        with quiet_zoo():
            pass
    assert "print" not in vars(exp_manager)
