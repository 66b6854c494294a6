"""The commands of `krontime`, one module each, named as it is typed; the table says what each does."""

COMMANDS = {
    "train": ("krontime.commands.train:train", "train a model on a data set and score it on the test split"),
    "evaluate": ("krontime.commands.evaluate:evaluate", "score a finished run on its test split again"),
    "predict": ("krontime.commands.predict:predict", "classify new files with a finished run"),
    "export": ("krontime.commands.export:export", "hand a finished run on: as a bundle, ONNX or torch.export"),
    "report": ("krontime.commands.report:report", "a finished run, or several, as one HTML page"),
    "explain": ("krontime.commands.explain:explain", "which parts of new series decided how they are classified"),
    "plan": (
        "krontime.commands.plan:plan",
        "what a model costs at a length: tokens, levels, parameters, FLOPs, memory",
    ),
    "benchmark": (
        "krontime.commands.benchmark:benchmark",
        "time and memory of models, or of a run's formats",
    ),
    "overhead": ("krontime.commands.overhead:overhead", "what the framework adds to a bare training loop"),
    "sweep-status": (
        "krontime.commands.sweep_status:sweep_status",
        "how far sweeps have come, and about how long is left",
    ),
    "tune": ("krontime.commands.tune:tune", "search a model's options on validation, in one process or several"),
    "probe": ("krontime.commands.probe:probe", "what each level of a trained KronTime knows of the synthetic patterns"),
    "tables": ("krontime.commands.tables:tables", "tables, significance tests and plots from the records of runs"),
    "verify": ("krontime.commands.verify:verify", "train a run of a published table again: is its record met?"),
    "audit": ("krontime.commands.audit:audit", "duplicates, leaks, controls and the official split of a data set"),
    "data": ("krontime.commands.data:data", "list the data sets, or inspect one"),
}
