"""Tokens merged inside the target encoder, layer by layer (tables 2 and 11)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor

from mmdtm.models.target_generators.openclip_generator import OpenCLIPGenerator
from mmdtm.morphing import TokenAssignment, bipartite_matching, kmeans


@MODELS.register_module()
class LayerwiseMorphingGenerator(OpenCLIPGenerator):
    """A CLIP whose patch tokens merge after each block, a fixed number of them.

    The comparison that tables 2 and 11 draw: the later blocks see merged
    tokens only, where DTM merges the finished tokens. After each block the
    patch tokens (never the class token) are grouped, and each group becomes
    the mean of all the original tokens in it. Which token each original one
    went into is kept all along, so that the student's tokens can be merged
    alike.

    Merged tokens attend and are attended to as any token. With
    ``proportional_attention`` a token that stands for s original ones weighs
    as much as s equal ones: log(s) is added to its attention logits. The paper
    does not say which; it is off by default.

    Args:
        merging (str): 'bipartite': one iteration of bipartite matching of even
            and odd positions after each block. 'kmeans': K-means on normalised
            tokens, starting from tokens at even distances in their order, so
            that nothing is drawn. Defaults to 'bipartite'.
        num_merged (int or Sequence[int]): How many tokens fewer there are
            after each block; one number for all blocks, or one for each. The
            paper gives no numbers; 8 leaves 100 of 196 tokens after 12 blocks.
            Defaults to 8.
        num_iters (int): Iterations of K-means. Defaults to 5.
        proportional_attention (bool): See above. Defaults to False.
        **kwargs: The teacher itself; see :class:`OpenCLIPGenerator`.

    Raises:
        ValueError: If an option is wrong, or more tokens are to merge than can:
            at most half of them by bipartite matching, all but one by K-means.
        FileNotFoundError: See :class:`OpenCLIPGenerator`.
    """

    assigns_tokens = True

    def __init__(
        self,
        merging: str = 'bipartite',
        num_merged: int | Sequence[int] = 8,
        num_iters: int = 5,
        proportional_attention: bool = False,
        **kwargs,
    ) -> None:
        if merging not in ('bipartite', 'kmeans'):
            raise ValueError(f"merging is {merging!r}; choose 'bipartite' or 'kmeans'.")
        super().__init__(**kwargs)
        num_blocks = len(self.teacher.transformer.resblocks)
        if isinstance(num_merged, int):
            num_merged = [num_merged] * num_blocks
        if len(num_merged) != num_blocks or min(num_merged) < 0:
            raise ValueError(
                f'num_merged is {list(num_merged)}; give one number of at least 0, or '
                f"one for each of the teacher's {num_blocks} blocks."
            )
        self.merging = merging
        self.num_merged = tuple(num_merged)
        self.num_iters = num_iters
        self.proportional_attention = proportional_attention

    def set_student_grid(
        self, grid_size: Sequence[int], img_size: int | Sequence[int]
    ) -> None:
        """See the base class; also checks that so many tokens can merge."""
        super().set_student_grid(grid_size, img_size)
        self.check_num_merged()

    def check_num_merged(self) -> None:
        """Check that every block has the tokens to merge.

        Raises:
            ValueError: If not; names the block.
        """
        count = self.grid_size[0] * self.grid_size[1]
        for block, merged in enumerate(self.num_merged):
            limit = count // 2 if self.merging == 'bipartite' else count - 1
            if merged > limit:
                raise ValueError(
                    f'num_merged asks for {merged} merged tokens after block {block}, '
                    f'where {count} are left and at most {limit} can merge by '
                    f'{self.merging}. Lower num_merged.'
                )
            count -= merged

    def extract_tokens(self, images: Tensor) -> tuple[Tensor, list[TokenAssignment]]:
        """Merge after each block; see the base class.

        Returns:
            tuple: v, (B, N, D), each position holding the token it merged
            into, and a list of one assignment of N tokens.
        """
        self.check_num_merged()
        tower = self.teacher
        x = tower._embeds(images)  # (B, 1 + N, C)
        batch_size, count = x.shape[0], x.shape[1] - 1
        assignment = TokenAssignment.identity(batch_size, count, x.device)
        sizes = x.new_ones(batch_size, count, 1, dtype=torch.float32)
        merged_before = False
        for block, merged in zip(
            tower.transformer.resblocks, self.num_merged, strict=True
        ):
            mask = None
            if self.proportional_attention and merged_before:
                mask = _attention_mask(sizes, block.attn.num_heads)
            x = block(x, attn_mask=mask)
            if merged:
                x, sizes, assignment = self._merge(x, sizes, assignment, merged)
                merged_before = True
        tokens = tower.ln_post(x)[:, 1:] @ tower.proj
        return assignment.unmorph(tokens), [assignment]

    def _merge(
        self, x: Tensor, sizes: Tensor, assignment: TokenAssignment, merged: int
    ) -> tuple[Tensor, Tensor, TokenAssignment]:
        """Merge patch tokens into ``merged`` fewer ones.

        Args:
            x (Tensor): (B, 1 + t, C), class token first.
            sizes (Tensor): (B, t, 1), original tokens in each.
            assignment (TokenAssignment): Of the original tokens to the t.
            merged (int): How many fewer.

        Returns:
            tuple: The same three, for t - merged tokens.
        """
        tokens = x[:, 1:]
        if self.merging == 'bipartite':
            step = bipartite_matching(tokens, (merged,), check_finite=False)
        else:
            centres = _even_tokens(tokens, tokens.shape[1] - merged)
            step = kmeans(
                tokens,
                centres.shape[1],
                self.num_iters,
                init=F.normalize(centres.float(), dim=2),
                check_finite=False,
            )
        summed = step.morph(tokens.float() * sizes, reduce='sum')
        sizes = step.morph(sizes, reduce='sum')
        x = torch.cat([x[:, :1], (summed / sizes).to(x.dtype)], dim=1)
        labels = step.labels.gather(1, assignment.labels)
        return x, sizes, TokenAssignment.trusted(labels, step.num_morphed)


def _even_tokens(tokens: Tensor, count: int) -> Tensor:
    """Choose tokens at even distances: (B, t, C) to (B, count, C)."""
    positions = torch.arange(count, device=tokens.device) * tokens.shape[1] // count
    return tokens[:, positions]


def _attention_mask(sizes: Tensor, num_heads: int) -> Tensor:
    """log(size) of each attended token, (B * heads, 1 + t, 1 + t)."""
    logits = F.pad(sizes.squeeze(2).log(), (1, 0))  # the class token has size 1
    length = logits.shape[1]
    return logits[:, None].repeat_interleave(num_heads, dim=0).expand(-1, length, -1)
