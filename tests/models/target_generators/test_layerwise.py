"""Merging inside the teacher, against bookkeeping token by token."""

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from mmdtm.models.target_generators import (
    LayerwiseMorphingGenerator,
    OpenCLIPGenerator,
)

pytestmark = pytest.mark.filterwarnings('ignore:RANDOM TEACHER')


def build(clip_config, clip_file, **kwargs):
    return LayerwiseMorphingGenerator(
        model='tiny', pretrained=clip_file, model_config=clip_config, **kwargs
    )


def pairs_by_hand(tokens, merged):
    """One bipartite step on the tokens of one image: (t, C) to groups of indices.

    The groups are in the new order: what stays of the even positions, most
    similar first, then the odd ones with what merged into them.
    """
    even, odd = range(0, len(tokens), 2), range(1, len(tokens), 2)
    best = []
    for i in even:
        similarities = [F.cosine_similarity(tokens[i], tokens[j], dim=0) for j in odd]
        partner = max(range(len(odd)), key=lambda k: similarities[k])
        best.append((-similarities[partner].item(), i, odd[partner]))
    best.sort()
    groups = [[i] for _, i, _ in best[merged:]]
    for j in odd:
        groups.append([j] + [i for _, i, partner in best[:merged] if partner == j])
    return groups


def by_hand(clip, images, num_merged, group, proportional=False):
    """The whole way of one batch, one image and one source list at a time."""
    visual = clip.visual
    results = []
    for image in images:
        x = visual._embeds(image[None])
        sources = [[i] for i in range(x.shape[1] - 1)]
        for block, merged in zip(visual.transformer.resblocks, num_merged, strict=True):
            sizes = torch.tensor([1] + [len(s) for s in sources]).float()
            heads = block.attn.num_heads
            mask = sizes.log().expand(heads, len(sizes), -1) if proportional else None
            x = block(x, attn_mask=mask)
            if merged == 0:
                continue
            groups = group(x[0, 1:], merged)
            tokens = []
            for members in groups:
                count = sum(len(sources[m]) for m in members)
                total = sum(x[0, 1 + m] * len(sources[m]) for m in members)
                tokens.append(total / count)
            sources = [[s for m in members for s in sources[m]] for members in groups]
            x = torch.cat([x[:, :1], torch.stack(tokens)[None]], dim=1)
        output = (visual.ln_post(x) @ visual.proj)[0, 1:]
        labels = torch.empty(sum(len(s) for s in sources), dtype=torch.int64)
        for index, members in enumerate(sources):
            labels[members] = index
        results.append((output[labels], labels))
    tokens, labels = zip(*results, strict=True)
    return torch.stack(tokens), torch.stack(labels)


@pytest.mark.parametrize('proportional', [False, True])
@pytest.mark.parametrize('num_merged', [(5, 4), (0, 7), (8, 0), (8, 4)])
def test_sources_and_tokens_of_bipartite_merging(
    num_merged, proportional, clip, clip_config, clip_file
):
    generator = build(
        clip_config,
        clip_file,
        num_merged=num_merged,
        proportional_attention=proportional,
    )
    images = torch.randn(3, 3, 32, 32)
    tokens, (assignment,) = generator(images)
    with torch.no_grad():
        expected, labels = by_hand(
            clip, images, num_merged, pairs_by_hand, proportional
        )
    assert assignment.num_morphed == 16 - sum(num_merged)
    assert torch.equal(assignment.labels, labels)
    assert tokens.shape == (3, 16, 16)
    torch.testing.assert_close(tokens, expected)


def test_kmeans_merges_to_constant_numbers(clip, clip_config, clip_file):
    def lloyd(tokens, merged):
        unit = F.normalize(tokens, dim=1)
        count = len(tokens) - merged
        centres = torch.stack([unit[i * len(tokens) // count] for i in range(count)])
        for _ in range(4):
            labels = torch.cdist(unit, centres).argmin(1)
            assert len(labels.unique()) == count, 'an empty cluster: choose other data'
            centres = torch.stack([unit[labels == c].mean(0) for c in range(count)])
        labels = torch.cdist(unit, centres).argmin(1)
        return [(labels == c).nonzero().flatten().tolist() for c in range(count)]

    generator = build(
        clip_config, clip_file, merging='kmeans', num_merged=(6, 5), num_iters=4
    )
    images = torch.randn(3, 3, 32, 32)
    tokens, (assignment,) = generator(images)
    with torch.no_grad():
        expected, labels = by_hand(clip, images, (6, 5), lloyd)
    assert assignment.num_morphed == 5
    assert torch.equal(assignment.labels, labels)
    torch.testing.assert_close(tokens, expected)


@pytest.mark.parametrize('merging', ['bipartite', 'kmeans'])
def test_nothing_merged_is_the_plain_teacher_to_the_bit(
    merging, clip_config, clip_file
):
    config = dict(model='tiny', pretrained=clip_file, model_config=clip_config)
    plain = OpenCLIPGenerator(**config)
    generator = MODELS.build(
        dict(
            type='LayerwiseMorphingGenerator',
            merging=merging,
            num_merged=0,
            proportional_attention=True,
            **config,
        )
    )
    assert generator.assigns_tokens and not plain.assigns_tokens
    for each in (plain, generator):
        each.set_student_grid((4, 4), 64)
    images = torch.randn(2, 3, 64, 64)
    tokens, (assignment,) = generator(images)
    assert torch.equal(tokens, plain(images))
    assert torch.equal(assignment.labels, torch.arange(16).expand(2, -1))


def test_compiles_without_a_graph_break(clip_config, clip_file):
    generator = build(clip_config, clip_file, num_merged=4)
    images = torch.randn(2, 3, 32, 32)
    tokens, (assignment,) = generator(images)
    compiled = torch.compile(generator, backend='eager', fullgraph=True)
    again, (same,) = compiled(images)
    torch.testing.assert_close(again, tokens)
    assert torch.equal(assignment.labels, same.labels)


def test_bad_options(clip_config, clip_file):
    with pytest.raises(ValueError, match="'bipartite' or 'kmeans'"):
        build(clip_config, clip_file, merging='soft')
    for wrong in (-1, (1, 1, 1)):
        with pytest.raises(ValueError, match="one for each of the teacher's 2 blocks"):
            build(clip_config, clip_file, num_merged=wrong)
    generator = build(clip_config, clip_file, num_merged=7)
    with pytest.raises(ValueError, match='after block 1, where 9 are left and at most'):
        generator.set_student_grid((4, 4), 32)
    generator = build(clip_config, clip_file, merging='kmeans', num_merged=8)
    with pytest.raises(ValueError, match='after block 1, where 8 .* at most 7'):
        generator.set_student_grid((4, 4), 32)
