"""Gathers what training uses of PyTorch's and Lightning's private parts, with reasons (networks: in `models`).

`tests/unit/training/test_torch_internals.py` fails when other versions are installed than these uses were checked with.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["FakeTensorMode", "TorchDispatchMode", "mark_as_not_begun", "resume_by_epochs", "storage_id", "tree_iter"]

VERIFIED = {"torch": "2.13.0", "lightning": "2.6.6"}
"""Versions that the uses below were checked with.

`FakeTensorMode`, `TorchDispatchMode` and `tree_iter`: `krontime plan` runs a network without memory and sees every
tensor that it makes; PyTorch documents them, under these names alone.
"""


def storage_id(tensor: Tensor) -> int:
    """Return a number that views of the same memory share; `data_ptr` is 0 for all tensors without memory."""
    number: int = tensor.untyped_storage()._cdata
    return number


def mark_as_not_begun(checkpoint: dict[str, Any]) -> None:
    """Change a checkpoint so that the batch that is about to begin counts neither as ready nor as the last.

    A checkpoint within an epoch is only made after a batch in Lightning; ours is made before the next one.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts["ready"] = counts["completed"]
    progress["is_last_batch"] = False


def resume_by_epochs(trainer: "Trainer") -> None:
    """Let a trainer with `max_steps` begin the next epoch where it resumes from a checkpoint of an epoch's end.

    Lightning takes every checkpoint for one within an epoch where steps are limited, and ends that epoch a second time,
    without its metrics: a callback that monitors one fails, and others count the epoch twice.
    """
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
