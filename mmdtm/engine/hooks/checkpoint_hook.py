"""A CheckpointHook that loses no checkpoint."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import (
    BaseStorageBackend,
    LocalBackend,
    get_file_backend,
    register_backend,
)
from mmengine.hooks import CheckpointHook
from mmpretrain.registry import HOOKS

from mmdtm.io import atomic_write, remove_leftovers, write_text


class AtomicLocalBackend(LocalBackend):
    """Local files, each written atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; see :func:`mmdtm.io.atomic_write`."""
        with atomic_write(filepath) as part:
            part.write_bytes(obj)


register_backend('atomic', AtomicLocalBackend, force=True)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """CheckpointHook whose newest whole checkpoint is there at any moment.

    mmengine's writes in place, and removes what ``max_keep_ckpts`` or a better
    checkpoint makes outdated before it writes: a run that is killed while saving
    leaves half a file, or none. Here a file gets its name once it is on the disk,
    and then outdated ones are removed; so the disk needs room for one checkpoint
    more than is kept. What killed runs left half-written is removed at the start.

    A save that fails (disk full, read-only, over quota) is logged as an error;
    training goes on, and the next interval tries again. Folders that are not on
    a local disk are written as mmengine does.

    Takes the arguments of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        OSError: If the last checkpoint of the training cannot be written.
    """

    file_backend: BaseStorageBackend
    # What a save notes down, beside the message hub.
    NOTES = ('last_ckpt', 'keep_ckpt_ids', 'best_ckpt_path', 'best_ckpt_path_dict')

    def before_train(self, runner) -> None:
        """Find the folder of checkpoints, and clear it of half-written ones."""
        super().before_train(runner)
        if type(self.file_backend) is LocalBackend:
            self.backend_args = dict(backend='atomic')
            self.file_backend = get_file_backend(backend_args=self.backend_args)
            if is_main_process():
                for folder in {str(self.out_dir), runner.work_dir}:
                    for path in remove_leftovers(folder):
                        runner.logger.info(f'Removed {path}, left by a killed save.')

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        with self._undone_on_failure(runner, step):
            outdated = None
            if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
                if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                    outdated = self._path(self.keep_ckpt_ids.popleft())
                self.keep_ckpt_ids.append(step)
                runner.message_hub.update_info(
                    'keep_ckpt_ids', list(self.keep_ckpt_ids)
                )
            self.last_ckpt = self._path(step)
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
            runner.call_hook('before_checkpoint')  # in all processes, unlike the next
            runner.save_checkpoint(
                self.out_dir,
                self.filename_tmpl.format(step),
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                write_text(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
                self._remove(outdated)

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        if not self.save_best:
            return
        step = runner.epoch if self.by_epoch else runner.iter
        with self._undone_on_failure(runner, step):
            before = self._best_paths()
            # mmengine removes the paths that it finds here, and then saves.
            self._note_best(dict.fromkeys(before))
            super()._save_best_checkpoint(runner, metrics)
            after = self._best_paths()
            self._note_best({key: after[key] or before[key] for key in before})
            if is_main_process():
                for key, path in before.items():
                    if after[key] not in (None, path):
                        self._remove(path)

    def _best_paths(self) -> dict[str | None, str | None]:
        if len(self.key_indicators) == 1:
            return {None: self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _note_best(self, paths: dict[str | None, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths[None]
        else:
            self.best_ckpt_path_dict = paths

    @contextmanager
    def _undone_on_failure(self, runner, step: int) -> Iterator[None]:
        """Take back what a save notes down when it cannot write."""
        info = runner.message_hub.runtime_info
        info_before = dict(info)
        notes = {n: copy.copy(v) for n, v in vars(self).items() if n in self.NOTES}
        try:
            yield
        except OSError as error:
            self.__dict__.update(notes)
            info.clear()
            info.update(info_before)
            if step >= (runner.max_epochs if self.by_epoch else runner.max_iters):
                raise
            runner.logger.error(
                f'The checkpoint of step {step} is not saved: {error}. Training goes '
                f'on and saves again at the next interval; until then '
                f'{self.last_ckpt or "nothing"} is what a resumed run starts from.'
            )

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(
            self.out_dir, self.filename_tmpl.format(step)
        )

    def _remove(self, path: str | None) -> None:
        if path is None:
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # deepspeed's checkpoints
            self.file_backend.rmtree(path)
