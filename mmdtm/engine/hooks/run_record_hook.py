"""Each run writes down what made it."""

import json
from pathlib import Path

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmpretrain.registry import HOOKS

from mmdtm import run_record
from mmdtm.engine.run_description import initial_checkpoints, new_record
from mmdtm.io import write_text


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Write ``run.json`` at a run's start, and its lineage into each checkpoint.

    The record (:mod:`mmdtm.run_record`) has the commit, the versions, the
    teacher's hash, the whole config, the command, the seed, the hardware, and
    the run whose weights this one started from. A resumed run keeps its record
    and adds the new start to it. A test writes its record beside its metrics,
    ``WORK_DIR/TIMESTAMP/run.json``, with the tested run as ``parent``.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Describe the run; a resumed one is told by its checkpoint first."""
        if not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        device = next(model.parameters()).device.type
        self.record = new_record(
            runner.cfg, model, runner.seed, get_world_size(), device
        )
        self.training = isinstance(runner._train_loop, BaseLoop)
        self.record['test'] = not self.training
        self.folder = Path(runner.work_dir if self.training else runner.log_dir)
        for path in initial_checkpoints(runner.cfg.get('model')):
            self.record['parent'] = self.record['parent'] or run_record.lineage_of(path)
        if not runner._resume:
            self.write()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Learn from a whole checkpoint where its weights came from."""
        if not is_main_process():
            return
        loaded = run_record.lineage_in(checkpoint)
        if not (self.training and runner._resume):
            self.record['parent'] = loaded
        else:
            earlier = run_record.read_record(self.folder)
            if earlier and loaded and earlier['id'] == loaded['id']:
                self.record['id'] = earlier['id']
                self.record['starts'] = earlier['starts'] + self.record['starts']
            self.record['parent'] = (loaded or {}).get('parent')
        self.write()

    def before_train(self, runner: Runner) -> None:
        """A run that should be resumed and found no checkpoint is a new one."""
        if is_main_process() and runner._resume and not runner._has_loaded:
            self.write()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Let the checkpoint say which run it is from."""
        checkpoint['meta'][run_record.KEY] = {
            **{name: self.record[name] for name in run_record.LINEAGE},
            'work_dir': str(Path(runner.work_dir).absolute()),
        }

    def write(self) -> None:
        """Write the record, all of it or nothing."""
        text = json.dumps(self.record, indent=1, default=str) + '\n'
        write_text(self.folder / run_record.FILE, text)
