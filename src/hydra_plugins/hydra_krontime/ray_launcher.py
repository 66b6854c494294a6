"""Jobs of a sweep as tasks of a Ray cluster.

With the options of hydra-ray-launcher's launcher of the same name, which can't be installed beside today's packages: it
asks for cloudpickle<3, and joblib, which scikit-learn needs, for cloudpickle>=3.
"""

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

log = logging.getLogger(__name__)


@dataclass
class RayConf:
    init: dict[str, Any] = field(default_factory=lambda: {"address": None})
    remote: dict[str, Any] = field(default_factory=dict)


@dataclass
class RayLauncherConf:
    _target_: str = "hydra_plugins.hydra_krontime.ray_launcher.RayLauncher"
    ray: RayConf = field(default_factory=RayConf)


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherConf, provider="krontime")


class RayLauncher(Launcher):
    """Runs each job as a task of Ray, on the cluster that `ray.init` finds or starts.

    Args:
        ray: `init` holds arguments of `ray.init`, `remote` those of `ray.remote`, such as `num_cpus`.
    """

    def __init__(self, ray: DictConfig) -> None:
        options = OmegaConf.to_container(ray, resolve=True)
        assert isinstance(options, dict)
        self.init: dict[str, Any] = options["init"]
        self.remote: dict[str, Any] = options["remote"]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called before any job is begun.

        Raises:
            UserError: Ray is not installed.
        """
        from krontime.errors import UserError

        if importlib.util.find_spec("ray") is None:
            raise UserError("hydra/launcher=ray: is not installed; expected pip install 'krontime[ray]' before")
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; one whose process died has failed, and stops no other."""
        import ray
        from ray.exceptions import RayError

        from krontime.config.hydra_internals import failed

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if not ray.is_initialized():
            ray.init(**self.init)
        function: Any = ray.remote(_run)
        if self.remote:
            function = function.options(**self.remote)
        tasks = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            log.info("\t#%d : %s", number, " ".join(filter_overrides(overrides)))
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            tasks.append(function.remote(self.hydra_context, config, self.task_function, Singleton.get_state()))
        returns = []
        for task in tasks:
            try:
                returns.append(ray.get(task))
            except RayError as error:
                returns.append(failed(error))
        return returns


def _run(
    hydra_context: HydraContext, config: DictConfig, task_function: TaskFunction, singleton_state: dict[Any, Any]
) -> JobReturn:
    """Run one job, in a process of Ray's."""
    setup_globals()
    Singleton.set_state(singleton_state)
    HydraConfig.instance().set_config(config)
    return run_job(
        hydra_context=hydra_context,
        config=config,
        task_function=task_function,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
