"""Tokens merged inside the target encoder, layer by layer (tables 2 and 11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor

from mmdtm.models.target_generators.base import Morphing
from mmdtm.models.target_generators.openclip_generator import (
    OpenCLIPGenerator,
    plain_tower,
)
from mmdtm.morphing import TokenAssignment, bipartite_matching, kmeans
from mmdtm.morphing.checks import check_option

if TYPE_CHECKING:
    from open_clip.transformer import ResidualAttentionBlock


@MODELS.register_module()
class LayerwiseMorphingGenerator(OpenCLIPGenerator):
    """A CLIP whose patch tokens merge in each block, by fixed numbers.

    The comparison that tables 2 and 11 draw: the later blocks see merged
    tokens only, where DTM merges the finished tokens. In each block the patch
    tokens (never the class token) are grouped, and each group becomes the mean
    of all the original tokens in it. Which token each original one went into
    is kept all along, so that the student's tokens can be merged alike.

    Table 2's row cites ToMe (Bolya et al., "Token Merging: Your ViT But
    Faster", arXiv 2210.09461). With ``match_keys``, ``merge_before_mlp`` and
    ``proportional_attention`` the tokens merge as there (section 3); without
    them, after each whole block and by the tokens themselves.

    Args:
        merging: 'bipartite': one iteration of bipartite matching of even and odd
            positions. 'kmeans': K-means on normalised tokens, starting from tokens at
            even distances in their order, so that nothing is drawn.
        num_merged: For 'bipartite', ToMe's r: how many tokens fewer there are after
            each block; one number for all blocks, or one for each. The paper gives no
            numbers; 8 leaves 100 of 196 tokens after 12 blocks.
        num_clusters: For 'kmeans', how many tokens there are after each block. With one
            number for all (table 11: a constant number of clusters) the first block
            merges, and the later ones find as many tokens as clusters.
        num_iters: Iterations of K-means.
        match_keys: Compare tokens by the keys of the block's attention, averaged over
            its heads, instead of by themselves.
        merge_before_mlp: Merge between the block's attention and its MLP, instead of
            after both.
        proportional_attention: A token that stands for s original ones is attended to
            as s equal ones would be: log(s) is added to its attention logits.
        **kwargs: The teacher itself; see :class:`OpenCLIPGenerator`.

    Raises:
        ValueError: If an option is wrong, or more tokens are to merge than can:
            at most half of them by bipartite matching, all but one by K-means.
        FileNotFoundError: See :class:`OpenCLIPGenerator`.
    """

    smoke: ClassVar[dict] = dict(OpenCLIPGenerator.smoke, num_merged=2, num_clusters=8)

    def __init__(
        self,
        merging: str = 'bipartite',
        num_merged: int | Sequence[int] = 8,
        num_clusters: int | Sequence[int] = 98,
        num_iters: int = 5,
        match_keys: bool = False,
        merge_before_mlp: bool = False,
        proportional_attention: bool = False,
        **kwargs,
    ) -> None:
        check_option(merging, ('bipartite', 'kmeans'), 'merging')
        super().__init__(**kwargs)
        from open_clip.transformer import ResidualAttentionBlock

        blocks = plain_tower(self.teacher).transformer.resblocks
        if not isinstance(blocks[0], ResidualAttentionBlock):
            raise ValueError(
                f"This CLIP's blocks are {type(blocks[0]).__name__}s, in which no "
                "tokens can merge. Choose a CLIP of open_clip's plain blocks, such as "
                'ViT-B-16-quickgelu.'
            )
        self.merging = merging
        if merging == 'bipartite':
            self.num_merged = _per_block('num_merged', num_merged, 0, len(blocks))
        else:
            self.num_clusters = _per_block('num_clusters', num_clusters, 1, len(blocks))
        self.num_iters = num_iters
        self.match_keys = match_keys
        self.merge_before_mlp = merge_before_mlp
        self.proportional_attention = proportional_attention

    def set_student_grid(
        self, grid_size: Sequence[int], img_size: int | Sequence[int]
    ) -> None:
        """See the base class; also checks that so many tokens can merge."""
        super().set_student_grid(grid_size, img_size)
        self.tokens_left()

    def tokens_left(self) -> list[int]:
        """Number of patch tokens after each block.

        Raises:
            ValueError: If a block lacks the tokens to merge; names the block.
        """
        count = self.grid_size[0] * self.grid_size[1]
        if self.merging == 'kmeans':
            for block, clusters in enumerate(self.num_clusters):
                if clusters > count:
                    raise ValueError(
                        f'num_clusters asks for {clusters} clusters in block {block}, '
                        f'where {count} tokens are left. Lower num_clusters.'
                    )
                count = clusters
            return list(self.num_clusters)
        left = []
        for block, merged in enumerate(self.num_merged):
            if merged > count // 2:
                raise ValueError(
                    f'num_merged asks for {merged} merged tokens in block {block}, '
                    f'where {count} are left and at most {count // 2} can merge by '
                    'bipartite matching. Lower num_merged.'
                )
            count -= merged
            left.append(count)
        return left

    def check_morphing(self, morphing: object | None) -> None:
        """Check that there is none.

        Raises:
            ValueError: If there is.
        """
        if morphing is not None:
            raise ValueError(
                f'{type(self).__name__} merges tokens itself, and there is a morphing, '
                'too. Set morphing=None.'
            )

    def targets(
        self, images: Tensor, morphing: Morphing | None = None
    ) -> tuple[Tensor, list[TokenAssignment]]:
        """Target tokens, each position holding the token it merged into.

        Returns:
            v, float32 (B, N, D), and a list of one assignment of N tokens.
        """
        tokens, assignment = self.run(self.merge_tokens, images)
        return tokens.float(), [assignment]

    def extract_tokens(self, images: Tensor) -> Tensor:
        return self.merge_tokens(images)[0]

    def merge_tokens(self, images: Tensor) -> tuple[Tensor, TokenAssignment]:
        """Run the network on (B, 3, H, W) and merge in each block."""
        tower = self.teacher
        x = tower._embeds(images)  # (B, 1 + N, C)
        assignment = TokenAssignment.identity(len(x), x.shape[1] - 1, x.device)
        for block, count in zip(
            tower.transformer.resblocks, self.tokens_left(), strict=True
        ):
            # As the block's own forward, with places to look in and to merge.
            inputs = block.ln_1(x)
            mask = None
            if self.proportional_attention and x.shape[1] <= assignment.num_tokens:
                mask = _attention_mask(assignment.sizes(), block.attn.num_heads)
            x = x + block.ls_1(block.attention(inputs, attn_mask=mask))
            keys = _keys(block, inputs)[:, 1:] if self.match_keys else None
            if self.merge_before_mlp:
                x, assignment = self._merge(x, keys, assignment, count)
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
            if not self.merge_before_mlp:
                x, assignment = self._merge(x, keys, assignment, count)
        tokens = tower.ln_post(x)[:, 1:] @ tower.proj
        return assignment.unmorph(tokens), assignment

    def _merge(
        self, x: Tensor, keys: Tensor | None, assignment: TokenAssignment, count: int
    ) -> tuple[Tensor, TokenAssignment]:
        """Merge t patch tokens into ``count``.

        Args:
            x: (B, 1 + t, C), class token first.
            keys: (B, t, K), what tells which are alike; None for the tokens.
            assignment: Of the original tokens to the t.
            count: Number of tokens afterwards.

        Returns:
            The tokens (B, 1 + count, C) and their assignment.
        """
        tokens = x[:, 1:]
        if count == tokens.shape[1]:
            return x, assignment
        compared = tokens if keys is None else keys
        if self.merging == 'bipartite':
            merged = tokens.shape[1] - count
            step = bipartite_matching(compared, (merged,), check_finite=False)
        else:
            centres = _even_tokens(compared, count)
            step = kmeans(
                compared,
                count,
                self.num_iters,
                init=F.normalize(centres.float(), dim=2),
                check_finite=False,
            )
        sizes = assignment.sizes().unsqueeze(2).float()
        summed = step.morph(tokens.float() * sizes, reduce='sum')
        labels = step.labels.gather(1, assignment.labels)
        assignment = TokenAssignment.trusted(labels, count)
        means = summed / assignment.sizes().unsqueeze(2)
        return torch.cat([x[:, :1], means.to(x.dtype)], dim=1), assignment


def _per_block(
    name: str, numbers: int | Sequence[int], lowest: int, num_blocks: int
) -> tuple[int, ...]:
    """One number for each block."""
    if isinstance(numbers, int):
        numbers = [numbers] * num_blocks
    if len(numbers) != num_blocks or min(numbers) < lowest:
        raise ValueError(
            f'{name} is {list(numbers)}. Give one number of at least {lowest}, or one '
            f"for each of the teacher's {num_blocks} blocks."
        )
    return tuple(numbers)


def _keys(block: ResidualAttentionBlock, inputs: Tensor) -> Tensor:
    """The keys of a block's attention, mean over its heads: (B, 1 + t, C / heads)."""
    attention = block.attn
    weight = attention.in_proj_weight.chunk(3)[1]
    bias = attention.in_proj_bias.chunk(3)[1]
    keys = F.linear(inputs, weight, bias)
    return keys.unflatten(2, (attention.num_heads, -1)).mean(dim=2)


def _even_tokens(tokens: Tensor, count: int) -> Tensor:
    """Choose tokens at even distances: (B, t, C) to (B, count, C)."""
    positions = torch.arange(count, device=tokens.device) * tokens.shape[1] // count
    return tokens[:, positions]


def _attention_mask(sizes: Tensor, num_heads: int) -> Tensor:
    """log(size) of each attended token, (B * heads, 1 + t, 1 + t)."""
    logits = F.pad(sizes.float().log(), (1, 0))  # the class token has size 1
    length = logits.shape[1]
    return logits[:, None].repeat_interleave(num_heads, dim=0).expand(-1, length, -1)
