"""Builds from a plain config what is trained: the network, the closed form, and the module that holds both."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from krontime.errors import UserError

if TYPE_CHECKING:
    from krontime.data.series import SeriesSpec
    from krontime.models.kernel_ridge.classifier import ClosedForm
    from krontime.models.network import SeriesNetwork
    from krontime.training.module import SeriesClassifier

from krontime.config.targets import has_network, instantiate, require_network


def network(config: Mapping[str, Any], spec: "SeriesSpec") -> "SeriesNetwork":
    """Build the network of a plain config for data of the given sizes, in windows where `data.window` says so.

    From this call on convolutions on a GPU are as exact in float32 as matrix products are by default (no TF32): all
    networks are compared alike, and the biases of fixed kernels are close to responses.

    Raises:
        UserError: the model has no network, or a window is not shorter than the series.
    """
    import torch

    from krontime.models.windowed import Windowed

    torch.backends.cudnn.allow_tf32 = False
    require_network(config)
    options = {key: value for key, value in config["model"].items() if key != "name"}
    window = (config.get("data") or {}).get("window") or {}
    is_cut = window.get("label") is not None  # windows are series of their own already, and `spec` is theirs
    length = spec.length if is_cut else window.get("length") or spec.length
    if window.get("length") and not is_cut and length >= spec.length:
        raise UserError(
            f"data.window.length={length}: expected less than the {spec.length} points of the longest series, or null"
        )
    built: SeriesNetwork = instantiate(
        options, "model", num_channels=spec.num_channels, length=length, num_classes=spec.num_classes
    )
    if length == spec.length:
        return built
    return Windowed(built, length=length, stride=window.get("stride") or length)


def closed_form(config: Mapping[str, Any], spec: "SeriesSpec") -> "ClosedForm | None":
    """Build the closed form of a plain config, which stands beside the network or alone; None where there is none."""
    options = config.get("closed_form")
    if not options:
        return None
    built: ClosedForm = instantiate(
        options,
        "closed_form",
        num_channels=spec.num_channels,
        length=spec.length,
        num_classes=spec.num_classes,
        num_series=spec.num_series,
        seed=config["seed"],
    )
    return built


def build_module(
    config: Mapping[str, Any],
    spec: "SeriesSpec",
    *,
    closed: "ClosedForm | None" = None,
    with_network: bool = True,
    **extra: Any,
) -> "SeriesClassifier":
    """Build the untrained module of a plain config, for data of the given sizes.

    Args:
        config: resolved, in plain types.
        spec: sizes of the data.
        closed: the closed form, where it is built already; None to build it.
        with_network: false where the closed form answers alone, whatever the config's model.
        extra: further arguments of `SeriesClassifier`.
    """
    from krontime.data.normalizer import Normalizer
    from krontime.training.augment import Augment
    from krontime.training.module import SeriesClassifier

    augment = config["augment"]
    return SeriesClassifier(
        network=network(config, spec) if with_network and has_network(config) else None,
        normalizer=Normalizer(scaling=config["data"]["scaling"], num_channels=spec.num_channels),
        closed_form=closed or closed_form(config, spec),
        num_classes=spec.num_classes,
        seed=config["seed"],
        augment=Augment(**augment) if any(augment.values()) else None,
        optimizer=instantiate(config["optim"]["optimizer"], "optim.optimizer"),
        warmup_fraction=config["optim"]["warmup_fraction"],
        min_lr_ratio=config["optim"]["min_lr_ratio"],
        label_smoothing=config["loss"]["label_smoothing"],
        **extra,
    )
