"""Names of the files of each format, and the packages that write and check them; imports nothing heavy."""

from importlib.util import find_spec

ONNX = "model.onnx"
TORCH = "model.pt2"
PREDICT = "predict.py"
ABOUT = "about.json"

FILES = {"onnx": (ONNX, PREDICT), "torch": (TORCH,)}
"""Files that each format adds to a bundle."""

NEEDS: dict[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": ()}
"""Packages that each format needs beside those of krontime."""


def missing_packages(name: str) -> list[str]:
    """List the packages of a format that are not installed."""
    return [package for package in NEEDS[name] if find_spec(package) is None]
