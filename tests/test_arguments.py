import inspect

import numpy as np
import pytest

from sb3_diayn import DIAYNCallback, Discriminator
from sb3_diayn.arguments import (
    architecture,
    arguments_for,
    check_options,
    check_positive,
    defaults,
    rules,
)
from sb3_diayn.trainer import DiscriminatorTrainer

# Other functions check them.
WITHOUT_RULE = {"obs_indices", "obs_function", "features_extractor_class", "verbose"}


def test_every_option_has_a_rule_that_its_default_obeys():
    found = rules(DIAYNCallback)
    assert found.keys() == defaults(DIAYNCallback).keys() - WITHOUT_RULE
    assert all(found[name].holds(defaults(DIAYNCallback)[name]) for name in found)


@pytest.mark.parametrize("part", [Discriminator, DiscriminatorTrainer])
def test_the_parts_have_the_defaults_and_rules_of_the_callback(part):
    options = defaults(DIAYNCallback)
    shared = arguments_for(part, options)
    own = {name: default for name, default in defaults(part).items() if name in shared}
    assert own == {name: options[name] for name in own}
    words = {name: rule.words for name, rule in rules(DIAYNCallback).items()}
    assert all(rule.words == words[name] for name, rule in rules(part).items() if name in shared)


def test_what_a_discriminator_is_built_from():
    assert architecture(DIAYNCallback) == [
        "net_arch",
        "obs_indices",
        "features_extractor_kwargs",
        "normalized_image",
        "use_actions",
        "normalize_obs",
        "objective",
        "spectral_norm",
        "cross_fit",
    ]


def test_options_become_plain():
    given = {
        "net_arch": (np.int64(8), 4),
        "learning_rate": np.float32(0.5),
        "n_updates": np.int8(2),
    }
    plain = check_options(DIAYNCallback, given)
    assert plain == {"net_arch": [8, 4], "learning_rate": 0.5, "n_updates": 2}
    assert [type(value) for value in plain.values()] == [list, float, int]
    assert type(plain["net_arch"][0]) is int


def test_the_sentence_names_option_value_and_rule():
    with pytest.raises(ValueError, match=r"max_grad_norm=-1 .*expected a positive number or None"):
        check_options(DIAYNCallback, {"max_grad_norm": -1})


def test_check_positive():
    assert check_positive("n", np.int32(3)) == 3
    for value in (0, -1, 1.0, True, "1", None):
        with pytest.raises(ValueError, match=r"n=.*expected an integer of at least 1\. Raise it\."):
            check_positive("n", value, "Raise it.")


def test_the_signature_is_that_of_the_options():
    parameters = list(inspect.signature(DIAYNCallback).parameters)
    assert parameters == list(defaults(DIAYNCallback))
