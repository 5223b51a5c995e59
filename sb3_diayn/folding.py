"""A network without the inputs that never change: they move into its biases."""

import torch as th
from sb3_contrib.common.torch_layers import BatchRenorm
from torch import nn

Parameters = dict[str, th.Tensor]


def fold_inputs(
    policy: nn.Module, smaller: nn.Module, columns: slice, constant: th.Tensor
) -> Parameters:
    """
    Wherever a layer of ``policy`` reads the features, W x + b with some of x constant is
    W' x' + (b + W" x"). So the smaller network computes the same from the features that remain.

    :param policy: network that reads all features
    :param smaller: the same network, built for the features that remain
    :param columns: which features are constant
    :param constant: what they are, float64, shape ``(n_columns,)``
    :return: parameters for ``smaller``, by name
    :raises ValueError: if a layer other than a linear one, an LSTM or a batch renormalisation
        reads the features
    """
    parameters = {name: value.clone() for name, value in policy.state_dict().items()}
    for name, expected in smaller.state_dict().items():
        if parameters[name].shape != expected.shape:
            _fold(policy, name, parameters, columns, constant)
    return parameters


def _fold(
    policy: nn.Module, name: str, parameters: Parameters, columns: slice, constant: th.Tensor
) -> None:
    """Replace the parameter ``name``, and the bias that belongs to it."""
    layer_name, _, parameter = name.rpartition(".")
    layer, weight = policy.get_submodule(layer_name), parameters[name]
    biases = {(nn.Linear, "weight"): "bias", (nn.LSTM, "weight_ih_l0"): "bias_ih_l0"}
    bias = f"{layer_name}.{biases.get((type(layer), parameter))}"
    if bias in parameters:
        read = _normalized(policy, layer_name, weight.shape[1], columns, constant)
        moved = parameters[bias].double() + weight[:, columns].double() @ read
        parameters[bias] = moved.to(weight.dtype)
    elif not isinstance(layer, BatchRenorm):
        raise ValueError(
            f"policy has a parameter {name!r} that depends on the skill and belongs to {layer}, "
            "which has no bias to move it to; expected linear layers after the features "
            "extractor. Use MlpPolicy or MultiInputPolicy with hidden layers."
        )
    remain = th.ones(weight.shape[-1], dtype=th.bool, device=weight.device)
    remain[columns] = False
    parameters[name] = weight[..., remain]


def _normalized(
    policy: nn.Module, layer_name: str, n_inputs: int, columns: slice, constant: th.Tensor
) -> th.Tensor:
    """What arrives at the layer: CrossQ normalises its inputs, each on its own."""
    parent_name, _, index = layer_name.rpartition(".")
    parent = policy.get_submodule(parent_name)
    before = parent[int(index) - 1] if isinstance(parent, nn.Sequential) and int(index) else None
    if not isinstance(before, BatchRenorm):
        return constant
    inputs = constant.new_zeros(1, n_inputs)
    inputs[:, columns] = constant
    return _in_evaluation_mode(before, inputs)[0, columns]


def _in_evaluation_mode(layer: nn.Module, inputs: th.Tensor) -> th.Tensor:
    was_training = layer.training
    layer.train(False)
    try:
        with th.no_grad():
            outputs: th.Tensor = layer(inputs)
    finally:
        layer.train(was_training)
    return outputs
