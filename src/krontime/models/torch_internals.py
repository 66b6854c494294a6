"""What the networks and the closed form use of PyTorch that it calls private, with the reason.

`tests/unit/models/test_torch_internals.py` fails when another version is installed than this use was checked with.
"""

from torch._higher_order_ops.scan import scan

__all__ = ["scan"]

VERIFIED = {"torch": "2.13.0"}
"""Version that the use below was checked with.

`scan`: a loop in an exported graph, which `torch.export` and `torch.onnx.export` know under this name alone; the closed
form's loops over rows and dilations would be tens of thousands of operations without it.
"""
