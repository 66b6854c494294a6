"""Private names of PyTorch and Lightning are used in two files, and were checked with the versions installed."""

import re
from importlib.metadata import version
from pathlib import Path

import torch

from krontime.training import torch_internals

SOURCE = Path(torch_internals.__file__).parents[2]


def test_the_uses_were_checked_with_these_versions():
    """After a look at each of them, the versions in the file may be raised."""
    for package, checked in torch_internals.VERIFIED.items():
        assert version(package).split("+")[0] == checked


def test_no_other_file_imports_private_names():
    private = re.compile(r"^\s*(from|import) (torch|lightning)[\w.]*\._|\._cdata|_set_params_and_buffers", re.MULTILINE)
    users = {
        path.relative_to(SOURCE / "krontime").as_posix()
        for path in SOURCE.rglob("*.py")
        if private.search(path.read_text(encoding="utf-8"))
    }
    assert users == {"models/torch_internals.py", "training/torch_internals.py"}


def test_views_have_the_storage_of_what_they_are_views_of():
    tensor = torch.zeros(4, device="meta")
    assert torch_internals.storage_id(tensor[1:]) == torch_internals.storage_id(tensor)
    assert torch_internals.storage_id(torch.zeros(4, device="meta")) != torch_internals.storage_id(tensor)
