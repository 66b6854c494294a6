"""The command `overhead`: what the framework adds to training, beside a bare PyTorch loop in the same process.

Epochs of the two take turns, so that a slow minute of the machine falls on both. The bare loop has its tensors ready
in memory and does what no training can leave out: scaling, the network, loss, gradients, clipping, the optimiser and
its schedule.
"""

import copy
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from torch.nn import functional as F

from krontime.commands.options import folder_of, output_problems
from krontime.config import resolve
from krontime.config.schema import check_train
from krontime.config.targets import require_network
from krontime.console import show
from krontime.data.datamodule import SeriesDataset, TrainBatches
from krontime.data.series import SeriesBatch
from krontime.errors import Problems
from krontime.runs import fitted_module, prepare
from krontime.runs.environment import environment_json
from krontime.runs.prepare import load_data
from krontime.runs.screen import format_bytes
from krontime.storage import replacing
from krontime.training import equipment
from krontime.training.module import SeriesClassifier
from krontime.training.quiet import quiet_lightning

OWN = ("rounds", "warmup", "start", "output")
"""Keys that `train` does not have."""


def overhead(config: DictConfig) -> dict[str, Any]:
    """Measure and show; see the config.

    Returns:
        The numbers: seconds and bytes.

    Raises:
        UserError: an option cannot work.
    """
    options = resolve.plain(config)
    own = {key: options.pop(key) for key in OWN}
    problems = Problems()
    for key in ("rounds", "warmup"):
        if type(own[key]) is not int or own[key] < 0:
            problems.add(key, own[key], "a whole number of at least 0")
    output = None if own["output"] is None else folder_of(own["output"])
    if output is not None:
        problems.lines += output_problems("output", output, is_folder=False, ending=".json")
    problems.raise_if_any()
    check_train(options, is_multirun=False)
    require_network(options)

    quiet_lightning()
    pl.seed_everything(options["seed"], verbose=False)
    measured: dict[str, Any] = {"data": options["data"]["name"], "model": options["model"]["name"]}
    if options.get("closed_form"):
        options["closed_form"]["min_network_series"] = 0  # steps are what is measured, whatever they are good for
    job = prepare.prepare(options)  # parsed into the cache, where it was not
    measured |= _opening(options)
    if own["rounds"]:
        measured |= _epochs(options, job, num_rounds=own["rounds"], num_warmup=own["warmup"])
    if own["start"]:
        measured["first_step_s"] = _first_step_s(has_closed_form=bool(options.get("closed_form")))
    show(_screen(measured))
    if output is not None:
        about = environment_json("cpu")
        with replacing(output) as temporary:
            temporary.write_text(json.dumps({**measured, **about}, indent=2) + "\n", encoding="utf-8")
    return measured


def _opening(options: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds that it takes to open the cached data set, its size, and the resident memory that this adds."""
    gc.collect()
    before, started_s = _resident_bytes(), time.perf_counter()
    data = load_data(options)
    opened_s, after = time.perf_counter() - started_s, _resident_bytes()
    added = None if before is None or after is None else max(0, after - before)
    return {"open_s": opened_s, "open_resident_bytes": added, "data_bytes": int(data.values.nbytes)}


def _resident_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None  # not Linux
    import resource

    return pages * resource.getpagesize()


def _epochs(
    options: Mapping[str, Any], job: prepare.PreparedData, *, num_rounds: int, num_warmup: int
) -> dict[str, Any]:
    """Medians over the rounds: seconds of a training epoch, bare and through the framework, and of a whole epoch."""
    module, held_out = fitted_module.fitted_module(options, job)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        turns = _Turns(_BareLoop(copy.deepcopy(module), options, job))
        callbacks = [*equipment.callbacks({**options, "callbacks": _without_stopping(options)}, run_dir), turns]
        length = {"max_epochs": num_warmup + num_rounds, "max_steps": -1, "max_time": None}
        trainer_options = {**options["trainer"], **length, "enable_progress_bar": False}
        trainer = equipment.trainer(
            {**options, "trainer": trainer_options}, run_dir, callbacks, equipment.loggers(options, run_dir)
        )
        trainer.fit(module, datamodule=job.batches(options, held_out))
    bare, framework, whole = (
        statistics.median(times[num_warmup:]) for times in (turns.bare_s, turns.train_s, turns.epoch_s)
    )
    ratios = [one / other for one, other in zip(turns.train_s[num_warmup:], turns.bare_s[num_warmup:], strict=True)]
    return {
        "bare_epoch_s": bare,
        "train_epoch_s": framework,
        "whole_epoch_s": whole,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rounds": len(ratios),
    }


def _without_stopping(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: callback
        for name, callback in (options["callbacks"] or {}).items()
        if callback and not callback["_target_"].endswith((".EarlyStopping", ".StopWhenDone"))
    }


class _BareLoop:
    """The minimum that trains the same network on the same batches."""

    def __init__(self, module: SeriesClassifier, options: Mapping[str, Any], job: prepare.PreparedData) -> None:
        self.module = module.train()
        self.clip = options["trainer"]["gradient_clip_val"]
        dataset = SeriesDataset(job.data, job.masked)
        batches = TrainBatches(
            job.split.train,
            lengths=job.data.lengths,
            batch_size=options["data"]["batch_size"],
            seed=options["seed"],
            position=lambda: (0, 0),
        )
        self.batches: list[SeriesBatch] = [dataset.__getitems__(indices) for indices in batches]
        assert module.optimizer is not None
        self.optimizer = module.optimizer([{"params": [p for p in module.parameters() if p.requires_grad]}])
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda _: 1.0)

    def epoch(self) -> None:
        for batch in self.batches:
            self.optimizer.zero_grad()
            logits = self.module.network_logits(batch.x, batch.mask)
            loss = F.cross_entropy(logits, batch.y)
            loss.backward()
            if self.clip:
                torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.step()


class _Turns(pl.Callback):
    """Times the epochs of the trainer, and lets the bare loop have one after each."""

    def __init__(self, bare: _BareLoop) -> None:
        self.bare = bare
        self.bare_s: list[float] = []
        self.train_s: list[float] = []
        self.epoch_s: list[float] = []
        self._begun_s = self._trained_s = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begun_s = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._trained_s = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        ended_s = time.perf_counter()
        self.train_s.append(self._trained_s - self._begun_s)
        self.epoch_s.append(ended_s - self._begun_s)
        self.bare.epoch()
        self.bare_s.append(time.perf_counter() - ended_s)


def _first_step_s(*, has_closed_form: bool) -> float:
    """Seconds from the command `krontime train` to the line that it shows after its first step."""
    from hydra.core.hydra_config import HydraConfig

    own = tuple(f"{key}=" for key in OWN)
    overrides = [text for text in HydraConfig.get().overrides.task if not text.lstrip("+").startswith(own)]
    with tempfile.TemporaryDirectory() as folder:
        overrides += ["trainer.max_epochs=1", "+trainer.limit_train_batches=1", "+trainer.limit_val_batches=0"]
        overrides += [
            "callbacks.checkpoint=null",
            "callbacks.early_stopping=null",
            "logger=[]",
            f"paths.output={folder}",
            *(["closed_form.min_network_series=0"] if has_closed_form else []),
        ]
        command = [sys.executable, "-m", "krontime", "train", *overrides]
        started_s = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if line.startswith("epoch 1 "):
                stepped_s = time.perf_counter() - started_s
                process.kill()
                process.wait()
                process.stderr.close()
                return stepped_s
        process.wait()
        raise RuntimeError(f"the run ended before its first step: {''.join(seen[-5:])}")


def _screen(measured: Mapping[str, Any]) -> str:
    added = measured["open_resident_bytes"]
    lines = [f"{measured['model']} on {measured['data']}", ""]
    if "rounds" in measured:
        lines += [
            f"training epoch    bare loop {measured['bare_epoch_s']:.3f} s, "
            f"framework {measured['train_epoch_s']:.3f} s: {measured['ratio']:.3f} of it "
            f"({measured['ratio_min']:.3f} to {measured['ratio_max']:.3f}); "
            f"medians of {measured['rounds']} epochs that take turns",
            f"whole epoch       {measured['whole_epoch_s']:.3f} s, with validation",
        ]
    lines.append(
        f"opening the data  {measured['open_s'] * 1000:.1f} ms for {format_bytes(measured['data_bytes'])}, "
        f"{'?' if added is None else format_bytes(added)} more in memory"
    )
    if "first_step_s" in measured:
        lines.append(f"first step        {measured['first_step_s']:.1f} s after the command")
    return "\n".join(lines)
