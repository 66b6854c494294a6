"""Broken files made of good ones: bytes, words, and the parts of archives, each change a function of a random state."""

import ast
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Mutate = Callable[[np.random.Generator, bytes], bytes]

WORDS = (
    *("nan", "inf", "-inf", "1e400", "-0", "1_0", "0x1", "?", "", " ", "\t", "\n", "\r\n", "\r", "\0", '"', "'", ","),
    *(":", ";", "#", "@", "@data", "@data\n", "@univariate true\n", "@equalLength true\n", "@timestamps true\n"),
    *("@classLabel true a b\n", "@classLabel false\n", "@targetLabel true\n", "label", "class", "y", "é", "\ufeff"),
    *("9" * 400, "1" * 5000, "1," * 3000, " " * 3000, ":" * 500, "[" * 3000, "{" * 3000, '{"a":' * 2000, "\u2028"),
    *("\ud7ff", "\U0001f600", "None", "null", "-1", "0", "1e-320", "1099511627776", "9223372036854775808", "true"),
    *("<f8", "|O", "<U9", "(2, 2)<f4", "()", "(0,)", "(-1,)", "(1099511627776,)", "fortran_order", "descr", "shape"),
    *(
        "True",
        "False",
        "${x}",
        "${krontime.stem:a}",
        "???",
        "_target_",
        "os.system",
        "krontime.config.resolve.plain",
        "~",
        "a=b",
    ),
    *("torch.optim.SGD", "krontime.models.tcn.TCN"),
)
NUMBERS = (0, 1, 2, 0xFF, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
VALUES = (
    *(None, True, False, 0, 1, -1, 2**70, 1.5, -1e308, float("nan"), float("inf"), "", "a", "x" * 2000, "\ud800"),
    *([], {}, [[]]),
)
MAX_BYTES = 200_000


def of_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    """A few changes: bits, bytes, integers, words, pieces dropped, doubled or moved, the end cut off."""
    changed = bytearray(data)
    for _ in range(int(rng.geometric(0.4))):
        size = len(changed)
        at, to = sorted(int(i) for i in rng.integers(0, size + 1, 2))
        to = min(to, at + int(rng.choice([1, 4, 40, 4000])))
        match int(rng.integers(0, 9)):
            case 0 if size:
                changed[at % size] ^= 1 << int(rng.integers(0, 8))
            case 1 if size:
                changed[at % size] = int(rng.integers(0, 256))
            case 2:
                width = int(rng.choice([1, 2, 4, 8]))
                number = int(rng.choice(np.array(NUMBERS, dtype=object))) % 256**width
                changed[at : at + width] = number.to_bytes(width, "little" if rng.random() < 0.8 else "big")
            case 3:
                changed[at:at] = _word(rng)
            case 4:
                changed[at:to] = _word(rng)
            case 5:
                del changed[at:to]
            case 6:
                changed[at:at] = changed[at:to] * int(rng.choice([1, 2, 50]))
            case 7:
                piece = changed[at:to]
                del changed[at:to]
                place = int(rng.integers(0, len(changed) + 1))
                changed[place:place] = piece
            case 8 if rng.random() < 0.2:
                del changed[at:]
    return bytes(changed[:MAX_BYTES])


def of_text(rng: np.random.Generator, data: bytes) -> bytes:
    """A few words put in, in the place of others too, pieces dropped, doubled or moved; rarely any bytes."""
    if rng.random() < 0.1:
        return of_bytes(rng, data)
    text = data.decode("utf-8", "replace")
    for _ in range(int(rng.geometric(0.4))):
        at, to = sorted(int(i) for i in rng.integers(0, len(text) + 1, 2))
        to = min(to, at + int(rng.choice([1, 4, 40])))
        match int(rng.integers(0, 6)):
            case 0:
                text = text[:at] + _text(rng) + text[at:]
            case 1:
                text = text[:at] + _text(rng) + text[to:]
            case 2:
                text = text[:at] + text[to:]
            case 3:
                text = text[:at] + text[at:to] * int(rng.choice([2, 50])) + text[to:]
            case 4:
                rows = text.split("\n")
                text = "\n".join(rng.permutation(np.array(rows, dtype=object)))
            case 5 if at < len(text):
                text = text[:at] + chr(int(rng.integers(9, 127))) + text[at + 1 :]
    return text.encode("utf-8", "surrogatepass")[:MAX_BYTES]


DTYPES = (
    *("<f4", ">f8", "<i2", "|b1", "<u8", "<c8", "<U3", "|S2", "<U0", "|V4", "|O", "<M8[s]", [("a", "<f4")]),
    ("<f4", (2,)),
)
SHAPES = (
    *((), (0,), (1,), (3,), (8,), (8, 1), (8, 2, 1), (2, 0, 4), (0, 3), (2**40,), (2**40, 0), (8, 2**62), (-8, -1)),
    (1,) * 40,
)


def of_npy(rng: np.random.Generator, data: bytes) -> bytes:
    """Another type, shape or order in a header that fits; the header's text changed; or any bytes."""
    if rng.random() < 0.3 or len(data) < 10:
        return of_bytes(rng, data)
    end = 10 + int.from_bytes(data[8:10], "little")
    header, values = data[10:end], data[end:]
    if rng.random() < 0.3:
        header = of_text(rng, header)[:60_000]
    else:
        try:
            fields = ast.literal_eval(header.decode("latin-1").strip())
            key = str(rng.choice(["descr", "shape", "shape", "fortran_order"]))
            choices: Any = {"descr": DTYPES, "shape": SHAPES, "fortran_order": (True, False, 2, None)}[key]
            fields[key] = choices[int(rng.integers(0, len(choices)))]
            header = repr(fields).encode()
        except (ValueError, SyntaxError, TypeError, KeyError):  # a broken one from the corpus
            return of_bytes(rng, data)
        if rng.random() < 0.7:
            values = rng.bytes(int(rng.integers(0, 600)))
    return data[:8] + len(header).to_bytes(2, "little") + header + values


def of_command_line(rng: np.random.Generator, data: bytes) -> bytes:
    """Keys and values of arguments changed, dropped, doubled, and added; or any text."""
    arguments = data.decode("utf-8", "replace").split("\0")
    for _ in range(int(rng.geometric(0.5))):
        at = int(rng.integers(0, len(arguments)))
        key, _, value = arguments[at].partition("=")
        match int(rng.integers(0, 7)):
            case 0:
                arguments[at] = of_text(rng, arguments[at].encode(errors="surrogatepass")).decode("utf-8", "replace")
            case 1:
                arguments[at] = f"{key}={_text(rng)}"
            case 2:
                arguments[at] = f"{key}={VALUES[int(rng.integers(0, len(VALUES)))]}"
            case 3:
                arguments[at] = f"{rng.choice(['+', '++', '~', '-', '--', '@', key + '.'])}{arguments[at]}"
            case 4:
                arguments[at] = f"{key}=[{value},{_text(rng)}]"
            case 5:
                arguments[at:at] = [f"{_text(rng)}={_text(rng)}"]
            case 6:
                arguments[at : at + 1] = arguments[at : at + 1] * 2
    return "\0".join(argument.replace("\0", "") for argument in arguments).encode("utf-8", "surrogatepass")


def of_archive(member: Mutate) -> Mutate:
    """A member changed, dropped, renamed or compressed, with checksums made right again; or any bytes."""

    def mutate(rng: np.random.Generator, data: bytes) -> bytes:
        if rng.random() < 0.25:
            return of_bytes(rng, data)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
        except Exception:  # a broken one from the corpus
            return of_bytes(rng, data)
        for name in rng.permutation(sorted(members))[: int(rng.integers(1, 3))].tolist():
            match int(rng.integers(0, 10)):
                case 0:
                    del members[name]
                case 1:
                    members["../" * 3 + name] = members.pop(name)
                case 2:
                    other = str(rng.choice(sorted(members)))
                    members[name], members[other] = members[other], members[name]
                case _:
                    members[name] = member(rng, members[name])
        out = io.BytesIO()
        method = zipfile.ZIP_STORED if rng.random() < 0.8 else int(rng.choice([8, 12, 14]))
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return out.getvalue() if rng.random() < 0.9 else of_bytes(rng, out.getvalue())

    return mutate


def of_json(rng: np.random.Generator, data: bytes) -> bytes:
    """Values of another type, keys dropped, added and moved; or any bytes."""
    if rng.random() < 0.3:
        return of_text(rng, data)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return of_bytes(rng, data)
    for _ in range(int(rng.integers(1, 4))):
        content = changed_value(rng, content)
    text = json.dumps(content)
    if rng.random() < 0.1:
        text = text.replace(str(rng.choice(["null", "0", '"x"'])), _text(rng), 1)
    return text.encode("utf-8", "surrogatepass")


def changed_value(rng: np.random.Generator, node: Any) -> Any:
    """The same plain value with something in it replaced."""
    if isinstance(node, dict) and node and rng.random() < 0.95:
        key = sorted(node, key=str)[int(rng.integers(0, len(node)))]
        match int(rng.integers(0, 12)):
            case 0:
                return {name: value for name, value in node.items() if name != key}
            case 1:
                return {**node, _text(rng): node[key]}
            case _:
                return {**node, key: changed_value(rng, node[key])}
    if isinstance(node, list | tuple) and node and rng.random() < 0.8:
        at = int(rng.integers(0, len(node)))
        return type(node)([*node[:at], changed_value(rng, node[at]), *node[at + 1 :]])
    if isinstance(node, int) and not isinstance(node, bool) and rng.random() < 0.5:
        return int(rng.choice(np.array([-node, node + 1, node * 1000, *NUMBERS], dtype=object)))
    return VALUES[int(rng.integers(0, len(VALUES)))] if rng.random() < 0.8 else _text(rng)


def _text(rng: np.random.Generator) -> str:
    return WORDS[int(rng.integers(0, len(WORDS)))]


def _word(rng: np.random.Generator) -> bytes:
    return _text(rng).encode("utf-8", "surrogatepass")
