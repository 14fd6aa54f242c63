"""What a step of pre-training moves through memory and keeps there; needs no GPU.

    python tools/benchmark/memory.py configs/dtm_vit-b_300e.py --batch-size 128
    python tools/benchmark/memory.py configs/beyond/dtm_vit-h_300e.py --batch-size 64

The step is computed with fake tensors, shapes without values, under autocast to
bfloat16. Traffic is the bytes that operations read and write, all but products,
convolutions, attention and views. Memory is what one process keeps at its peak, alone
and as one of several that share the model out (ShardedRunner).
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker, _MemRefType
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmdtm.cli.scripts import script_parser

GB = 1e9
# Compute decides what they cost, not memory.
FREE = set(
    'detach device empty empty_like empty_strided new_empty new_empty_strided '
    '_reshape_alias _unsafe_view'.split()
)
PRODUCTS = set(
    'mm addmm bmm baddbmm convolution convolution_backward '
    '_scaled_dot_product_efficient_attention '
    '_scaled_dot_product_efficient_attention_backward'.split()
)


class TrafficCounter(TorchDispatchMode):
    """Adds up the bytes that operations read and write.

    Attributes:
        part: What they are counted for.
        bytes: By part and name of the operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.part = ''
        self.bytes: Counter[tuple[str, str]] = Counter()

    def begin(self, part: str) -> None:
        """Count for another part from now on."""
        self.part = part

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        name = operation.__name__.split('.')[0]
        if name in PRODUCTS or name in FREE or operation.is_view:
            return result
        arguments = [*zip(operation._schema.arguments, args, strict=False)]
        arguments += [
            (argument, kwargs[argument.name])
            for argument in operation._schema.arguments
            if kwargs and argument.name in kwargs
        ]
        read, written = [], []
        for argument, value in arguments:
            if not argument.is_out:
                read += tensors(value)
            if argument.alias_info is not None and argument.alias_info.is_write:
                written += tensors(value)
        known = {storage(tensor) for tensor in read + written}
        written += [x for x in tensors(result) if storage(x) not in known]
        self.bytes[self.part, name] += sum(map(size, read + written))
        return result


def tensors(node: object) -> list[Tensor]:
    """Those anywhere in it."""
    return [leaf for leaf in tree_leaves(node) if isinstance(leaf, Tensor)]


def size(tensor: Tensor) -> int:
    """Its bytes in memory: a dimension it is expanded along counts once."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(n for n, step in sides if step or not n) * tensor.element_size()


def storage(tensor: Tensor) -> int:
    """What two tensors have in common if one is a view of the other."""
    return tensor.untyped_storage()._cdata


def _attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *_):
    """Memory-efficient attention, as a GPU would choose it."""
    if attn_mask is not None:
        attn_mask = attn_mask.expand(*q.shape[:-1], k.shape[-2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, True
    )[0]


@contextmanager
def fake_gpu() -> Iterator[FakeTensorMode]:
    """Tensors are fake, on ``cuda``, and autocast to bfloat16 is on."""
    with (
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
        torch.autocast('cpu', torch.bfloat16),
        mock.patch.object(F, 'scaled_dot_product_attention', _attention),
        mock.patch.object(nn.init, 'trunc_normal_', lambda tensor, **_: tensor),
    ):
        yield mode


class Step:
    """A step with fake tensors of a config's model, whose teacher has random weights.

    Args:
        cfg: A pre-training config.
        batch_size: Images.
    """

    def __init__(self, cfg: Config, batch_size: int) -> None:
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        teacher = cfg.model.target_generator
        teacher.pretrained = False if teacher.type == 'TimmGenerator' else None
        teacher.random_weights = True
        teacher.setdefault('dtype', 'bfloat16')  # as on a GPU
        self.model = MODELS.build(cfg.model).train()
        self.model.morphing._seed_and_step = (0, 0)
        student = self.model.backbone
        self.images = torch.randn(batch_size, 3, *student.img_size)
        self.mask = torch.zeros(batch_size, *student.patch_resolution).bool()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, fused=True)

    def teach(self, part: Callable[[str], Any] = str, draws: int = 1) -> None:
        """Compute the targets and their groups; tell ``part`` what comes next."""
        part('teacher')
        self.target = self.model.target_generator(self.images)
        part('matching')
        for _ in range(draws):
            self.groups = self.model.morphing(self.target)

    def learn(self, part: Callable[[str], Any] = str) -> None:
        """Take a step towards them."""
        part('student')
        tokens = self.model.student_tokens(self.images, self.mask)
        part('loss')
        loss = self.model.head.loss(tokens, self.target, self.groups)
        part('backward')
        loss.backward()
        part('optimizer')
        nn.utils.clip_grad_norm_(self.parameters, 3.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def traffic(cfg: Config, batch_size: int, draws: int = 14) -> TrafficCounter:
    """Count what a step moves, by part.

    Args:
        cfg: A pre-training config.
        batch_size: Images.
        draws: Of the schedules, which the matching takes the mean of.
    """
    counter = TrafficCounter()
    with fake_gpu():
        step = Step(cfg, batch_size)
        step.teach()
        step.learn()  # makes the moments
        with counter:
            step.teach(counter.begin, draws)
            step.learn(counter.begin)
    for part, name in counter.bytes:
        if part == 'matching':
            counter.bytes[part, name] //= draws
    return counter


def kept(cfg: Config, batch_size: int) -> dict[str, int]:
    """Bytes that one process holds at the peak of a step, at most.

    Returns:
        ``'model'``: parameters, gradients and AdamW's moments; ``'teacher'``: its
        parameters, in both precisions; ``'step'``: the rest, activations above all.
    """
    with fake_gpu():
        step = Step(cfg, batch_size)
        step.teach()
        step.learn()
        tracker = MemTracker()
        tracker.track_external(step.model, step.optimizer)
        with tracker:
            step.learn()
        (peak,) = tracker.get_tracker_snapshot('peak').values()
        tower = step.model.target_generator
        halves = [weight.half for weight in tower._half_weights]
        teacher = sum(map(size, [*tower.teacher.parameters(), *halves]))
    states = (_MemRefType.PARAM, _MemRefType.GRAD, _MemRefType.OPT)
    return dict(
        model=16 * sum(p.numel() for p in step.parameters),
        teacher=teacher,
        step=peak['Total'] - sum(peak[kind] for kind in states),
    )


def main(argv: list[str] | None = None) -> None:
    """Print both tables."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add('config', type=Path, help='a pre-training config')
    add('--batch-size', type=int, default=128, help='images')
    text = 'that share it out'
    add('--processes', type=int, nargs='+', default=[1, 8, 16], help=text)
    args = parser.parse_args(argv)
    counter = traffic(Config.fromfile(args.config), args.batch_size)
    parts: dict[str, Counter[str]] = {}
    for (part, name), moved in counter.bytes.items():
        parts.setdefault(part, Counter())[name] += moved
    print('Traffic, GB:')
    for part, names in parts.items():
        most = ', '.join(f'{n} {v / GB:.1f}' for n, v in names.most_common(5))
        print(f'{part:10} {names.total() / GB:6.1f}   {most}')
    print(f'{"step":10} {counter.bytes.total() / GB:6.1f}')
    bytes_kept = kept(Config.fromfile(args.config), args.batch_size)
    print('Memory of a process, GB:')
    for processes in args.processes:
        rows = bytes_kept | dict(model=bytes_kept['model'] // processes)
        each = ', '.join(f'{name} {value / GB:.1f}' for name, value in rows.items())
        print(f'{processes:4} sharing: {sum(rows.values()) / GB:6.1f}   {each}')


if __name__ == '__main__':
    main()
