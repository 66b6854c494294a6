"""Reads a checkpoint from anyone: plain containers and tensors, no more bytes than the file has, no code."""

import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

MAX_PICKLE_BYTES = 2**26
"""Number of bytes of the longest structure (all but the numbers of tensors) that is read."""

MAX_VALUES = 2**17
"""Maximum number of values that the structure may come to when each container in it is followed wherever it stands."""

_ALLOWED = re.compile(
    r"collections (OrderedDict|Counter|defaultdict)|(builtins|__builtin__) (set|complex)|torch\.nn\.parameter Parameter"
    r"|torch (\w*Storage|Size|device|bfloat16|float\d+|u?int\d+|bool)|torch\._utils _rebuild_(tensor_v2|parameter)"
)
"""Names that the structure may call: those that a training state is made of.

torch's own list, which is applied besides, has some that take any amount of memory, such as bytearray.
"""

_OBJECT_OPCODES = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")
"""Pickle opcodes that build objects of classes which are not named beside them."""


def read_checkpoint(path: Path) -> Any:
    """Read what `torch.save` wrote to `path`, with tensors on the CPU.

    Raises:
        ValueError: the file is damaged, or could run code or take more memory than its own size.
    """
    import torch

    try:
        if problem := _problem(path):
            raise ValueError(problem)
        content = torch.load(path, map_location="cpu", weights_only=True)
        if (count := _num_values(content)) > MAX_VALUES:
            raise ValueError(f"its containers hold each other {count:,} times over")
        return content
    except Exception as error:  # zipfile, pickletools and torch raise whatever the first damaged byte leads to
        reason = str(error).strip().splitlines()[:1]
        prefix = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise ValueError(prefix + (reason[0] if reason else "it is damaged")) from error


def _problem(path: Path) -> str | None:
    """Say why a checkpoint is not read, or None where it may be."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            return "it is compressed, which torch does not do"
        if sum(member.file_size for member in members) > path.stat().st_size:
            return "it declares more bytes than it has"
        structures = [member for member in members if member.filename.endswith("data.pkl")]
        if len(structures) != 1 or structures[0].file_size > MAX_PICKLE_BYTES:
            return "it is not one structure of plain values and tensors"
        for opcode, argument, _ in pickletools.genops(archive.read(structures[0])):
            if opcode.name in _OBJECT_OPCODES:
                return f"it builds objects ({opcode.name}), where only plain values and tensors are read"
            if opcode.name == "GLOBAL" and not _ALLOWED.fullmatch(str(argument)):
                return f"it names {str(argument).replace(' ', '.')[:80]}, where only plain values and tensors are read"
    return None


def _num_values(node: Any) -> int:
    """Count the values below a node, those of a container as often as it occurs.

    Raises:
        ValueError: a container holds itself.
    """
    counted: dict[int, int | None] = {}

    def count(node: Any) -> int:
        if not isinstance(node, dict | list | tuple | set):
            return 1
        if id(node) not in counted:
            counted[id(node)] = None
            counted[id(node)] = 1 + sum(count(item) for item in (node.values() if isinstance(node, dict) else node))
        if (size := counted[id(node)]) is None:
            raise ValueError("one of its containers holds itself")
        return size

    return count(node)
