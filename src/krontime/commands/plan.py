"""The command `plan`: what a network costs at a length, before anything is trained.

Networks are built and run on fake tensors, which have shapes but no memory, so that the figures are those of the real
operators on this machine, not of formulas beside them.
"""

import inspect
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from krontime.config import resolve
from krontime.config.schema import plan_problems
from krontime.config.targets import require_network
from krontime.data.series import SeriesData, SeriesSpec
from krontime.errors import Problems, UserError
from krontime.models.layers.tokenizers import Tokenizer
from krontime.ops.levels import LevelPlan
from krontime.training import build
from krontime.training.torch_internals import FakeTensorMode, TorchDispatchMode, storage_id, tree_iter

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Cost:
    """What one network costs for one batch.

    Attributes:
        num_tokens: tokens of the longest series; None for a network without tokens.
        levels: its level sizes; None for a network without levels.
        num_parameters: learned parameters.
        forward_flops: floating-point operations of one forward pass (a multiply-add counts as two), all series.
        activation_bytes: peak that the forward and backward pass of a training step hold, beside the
            parameters and the optimiser's state.
    """

    num_tokens: int | None
    levels: LevelPlan | None
    num_parameters: int
    forward_flops: int
    activation_bytes: int


def cost(config: Mapping[str, Any], spec: SeriesSpec, *, batch_size: int) -> Cost:
    """What the network of a plain config costs for a batch of the longest series."""
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def fused(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    # PyTorch knows the operations of fused attention on a GPU, but leaves those on a CPU out.
    flops = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused}
    )
    with torch.device("meta"):  # initialisation may look at values, which fake tensors don't have
        network = build.network(config, spec)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu")
        x = torch.empty(batch_size, spec.num_channels, spec.length)
        memory = _Memory()
        with memory:
            with flops:
                logits = network(x)
            logits.sum().backward()
    return Cost(
        num_tokens=_num_tokens(network, spec.length),
        levels=next((plan for module in network.modules() for plan in _plans(module)), None),
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        forward_flops=flops.get_total_flops(),
        activation_bytes=memory.peak_bytes,
    )


class _Memory(TorchDispatchMode):
    """Counts the bytes of the tensors that are made under it, and the peak of those alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {storage_id(tensor) for tensor in tree_iter((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_iter(out):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            address, size = storage_id(tensor), storage.nbytes()
            if address in self._alive or address in known:
                continue  # a view, or written in place
            self._alive.add(address)
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            weakref.finalize(storage, self._free, address, size)
        return out

    def _free(self, address: int, size: int) -> None:
        self._alive.discard(address)
        self.live_bytes -= size


def _num_tokens(network: nn.Module, length: int) -> int | None:
    length = getattr(network, "length", length)  # that of a window, where the series is cut into windows
    tokenizers = [module for module in network.modules() if isinstance(module, Tokenizer)]
    return tokenizers[0].num_tokens(length) if tokenizers else None


def _plans(module: nn.Module) -> list[LevelPlan]:
    return [value for value in vars(module).values() if isinstance(value, LevelPlan)]


def attention_kinds(config: Mapping[str, Any]) -> list[str | None]:
    """The kinds that the network of a plain config offers as `attention`; `[None]` where it has no such option."""
    from hydra.utils import get_class

    annotation = inspect.signature(get_class(config["model"]["_target_"])).parameters.get("attention")
    if annotation is None or get_origin(annotation.annotation) is not Literal:
        return [None]
    return list(get_args(annotation.annotation))


def plan(config: DictConfig) -> dict[str | None, Cost]:
    """Show the cost of a model at a length for each of its attention kinds.

    Raises:
        UserError: neither a data set nor a length is given, or the model refuses its options.
    """
    options = resolve.plain(config)
    if problems := plan_problems(options) + _length_problems(options):
        raise UserError(problems)
    require_network(options)
    data = _data(options)
    spec = _spec(options) if data is None else data.spec
    batch_size = options["batch_size"]
    costs = {
        kind: cost(
            options if kind is None else {**options, "model": {**options["model"], "attention": kind}},
            spec,
            batch_size=batch_size,
        )
        for kind in attention_kinds(options)
    }
    _show(options, spec, batch_size, costs)
    if data is not None and options["epoch"]:
        _show_epoch(options, data)
    return costs


def _length_problems(options: Mapping[str, Any]) -> list[str]:
    """Either a data set or a length."""
    problems = Problems()
    if options.get("data") is None and options["length"] is None:
        problems.add("length", None, "a number of time points of at least 1, or data=NAME")
    elif options.get("data") is not None and options["length"] is not None:
        problems.add("length", options["length"], "null where data=NAME says the length")
    for key, default in (("num_channels", 1), ("num_classes", 2)):
        if options.get("data") is not None and options[key] != default:
            problems.add(key, options[key], f"nothing ({default}) where data=NAME says it")
    if options.get("data") is None and options["epoch"]:
        problems.add("epoch", True, "false without data=NAME, which has the series that an epoch is of")
    return problems.lines


def _data(options: Mapping[str, Any]) -> SeriesData | None:
    if options.get("data") is None:
        return None
    from krontime.runs.prepare import load_data

    return load_data(options)


def _spec(options: Mapping[str, Any]) -> SeriesSpec:
    names = tuple(str(label) for label in range(options["num_classes"]))
    return SeriesSpec(options["num_channels"], options["length"], len(names), names)


def _show_epoch(options: Mapping[str, Any], data: SeriesData) -> None:
    from krontime.commands.plan_epoch import measured_epoch
    from krontime.console import show

    epoch = measured_epoch(options, data)
    show(
        f"an epoch: {epoch.num_batches:,} batches of {options['batch_size']} series, about {epoch.seconds:,.3g} s on "
        f"this machine's CPU with {torch.get_num_threads()} threads, reading included, validation not (a step takes "
        f"{epoch.seconds / epoch.num_batches:.3g} s, the median of {epoch.num_measured})"
    )


def _show(options: Mapping[str, Any], spec: SeriesSpec, batch_size: int, costs: Mapping[str | None, Cost]) -> None:
    from rich.table import Table

    from krontime.console import show

    first = next(iter(costs.values()))
    show(
        f"{options['model']['name']} on {spec.num_channels} x {spec.length:,} points, {spec.num_classes} classes, "
        f"batch {batch_size}, float32" + (f": {first.num_tokens:,} tokens" if first.num_tokens is not None else "")
    )
    table = Table()
    columns = ["attention", "level sizes", "padding", "parameters", "forward GFLOP", "activations MiB"]
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:2] else "right")
    for kind, cost in costs.items():
        levels = cost.levels
        table.add_row(
            kind or "-",
            " x ".join(map(str, levels.sizes)) if levels else "-",
            f"{levels.waste:.1%}" if levels else "-",
            f"{cost.num_parameters:,}",
            f"{cost.forward_flops / 1e9:,.2f}",
            f"{cost.activation_bytes / MEBIBYTE:,.1f}",
        )
    show(table)
