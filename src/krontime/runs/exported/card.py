"""Writes the section of the model card on the formats beside a bundle, in Markdown."""

from krontime.runs.exported import formats
from krontime.runs.exported.files import FILES
from krontime.runs.exported.parity import TOLERANCE, Parity, Sample
from krontime.runs.load import LoadedRun
from krontime.training.answer import Answer


def of_formats(run: LoadedRun, results: list[Parity], series: Sample) -> str:
    """Write the section: what the formats hold, take and return, and how far they are from the trained model."""
    names = [result.name for result in results]
    rows = [
        f"| {it.name} | `{FILES[it.name][0]}` | {it.difference:.1e} | {it.num_other_classes} of {len(series.series)} |"
        for it in results
    ]
    return "\n".join(
        [
            "\n## Formats\n",
            *_contents(run),
            "",
            "| format | file | largest difference in probability | other class |",
            "|---|---|--:|--:|",
            *rows,
            "",
            f"Compared with the trained model on {series.source}; at most {TOLERANCE:g} is accepted.",
            "`krontime export check=FOLDER` compares them again.",
            *(_ONNX_USE if "onnx" in names else []),
            *(_TORCH_USE if "torch" in names else []),
            "",
        ]
    )


def _contents(run: LoadedRun) -> list[str]:
    """List the lines on what a graph holds, takes and returns."""
    answer, spec = Answer(run.module, run.spec.length), run.spec
    inside = []
    if answer.network is not None:
        inside.append("the scaling and the network")
    if len(answer.parts):
        inside.append(f"{len(answer.parts)} calibrated part{'s' * (len(answer.parts) != 1)} of the closed form")
    left_out = "" if run.module.network is None or answer.network is not None else " (the network has no say in it)"
    shortest = min(formats.SHORTEST, spec.length)
    prepared = formats.described(run)["preparation"]
    lines = [
        f"One graph has {' and '.join(inside)}{left_out}, up to the probabilities.",
        "",
        f"- input `x`: `(batch, {spec.num_channels}, length)` float32, raw series of any number, of {shortest} to "
        f"{spec.length} points;",
        "  NaN where a value is missing, and after the end of a shorter series",
        f"- output `probabilities`: `(batch, {spec.num_classes})` float32, the classes in the order above",
    ]
    lines.append(f"- all is computed on {spec.length} points, whatever the length: a shorter series takes as long")
    left_to_others = {
        "what raw numbers stand for, which `predict.py` sees to": run.decoding.options(),
        "the preparation of the series": prepared,
    }
    for what, options in left_to_others.items():
        if options:
            given = ", ".join(f"{key}={value}" for key, value in options.items())
            lines.append(f"- not in the graph: {what} ({given})")
    return lines


_ONNX_USE = [
    "",
    "`predict.py` needs numpy and onnxruntime alone:",
    "",
    "```bash",
    "pip install --no-compile numpy onnxruntime",
    "python predict.py SERIES.npy",
    "```",
]

_TORCH_USE = [
    "",
    "With torch alone: `torch.export.load('model.pt2').module()(x)`.",
]
