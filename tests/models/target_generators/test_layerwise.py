"""Merging inside the teacher, against loops over blocks, images and tokens."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from mmdtm.models.target_generators import (
    LayerwiseMorphingGenerator,
    OpenCLIPGenerator,
)

TOME = dict(match_keys=True, merge_before_mlp=True, proportional_attention=True)


def build(clip_config, clip_file, **kwargs):
    return LayerwiseMorphingGenerator(
        model='tiny', pretrained=clip_file, model_config=clip_config, **kwargs
    )


def pairs_by_hand(compared, left):
    """One bipartite step on t tokens of one image: lists of their indices.

    The groups are in the new order: what stays of the even positions, most
    similar first, then the odd ones with what merged into them.
    """
    even, odd = range(0, len(compared), 2), range(1, len(compared), 2)
    best = []
    for i in even:
        alike = [F.cosine_similarity(compared[i], compared[j], dim=0) for j in odd]
        partner = max(range(len(odd)), key=lambda k: alike[k])
        best.append((-alike[partner].item(), i, odd[partner]))
    best.sort()
    merged = len(compared) - left
    groups = [[i] for _, i, _ in best[merged:]]
    for j in odd:
        groups.append([j] + [i for _, i, partner in best[:merged] if partner == j])
    return groups


def lloyd(compared, left):
    """Four iterations of K-means on one image: lists of indices."""
    unit = F.normalize(compared, dim=1)
    centres = torch.stack([unit[i * len(unit) // left] for i in range(left)])
    for iteration in range(5):
        labels = torch.cdist(unit, centres).argmin(1)
        assert len(labels.unique()) == left, 'an empty cluster: choose other data'
        if iteration < 4:
            centres = torch.stack([unit[labels == c].mean(0) for c in range(left)])
    return [(labels == c).nonzero().flatten().tolist() for c in range(left)]


def attention_by_hand(block, x, sizes):
    """What the attention adds to (1 + t, C), and the tokens' mean keys."""
    weights, biases = block.attn.in_proj_weight, block.attn.in_proj_bias
    heads = block.attn.num_heads
    q, k, v = (
        part.view(len(x), heads, -1).transpose(0, 1)
        for part in (block.ln_1(x) @ weights.T + biases).chunk(3, dim=1)
    )
    outputs = []
    for head in range(heads):
        logits = q[head] @ k[head].T / q.shape[2] ** 0.5
        if sizes is not None:  # s equal tokens take part s times
            shares = logits.exp() * torch.tensor([1, *sizes])
            outputs.append(shares / shares.sum(1, keepdim=True) @ v[head])
        else:
            outputs.append(logits.softmax(1) @ v[head])
    return block.attn.out_proj(torch.cat(outputs, dim=1)), k.mean(0)[1:]


@torch.no_grad()
def by_hand(clip, images, tokens_left, group, keys=False, early=False, sized=False):
    """The whole way of one batch in float64, one image at a time."""
    visual = clip.double().visual
    results = []
    for image in images.double():
        x = visual._embeds(image[None])[0]
        sources = [[i] for i in range(len(x) - 1)]
        for block, left in zip(visual.transformer.resblocks, tokens_left, strict=True):
            sizes = [len(members) for members in sources] if sized else None
            attended, mean_keys = attention_by_hand(block, x, sizes)
            x = x + attended
            if not early:
                x = x + block.mlp(block.ln_2(x))
            if left < len(sources):
                groups = group(mean_keys if keys else x[1:], left)
                merged = []
                for members in groups:
                    total = sum(x[1 + m] * len(sources[m]) for m in members)
                    merged.append(total / sum(len(sources[m]) for m in members))
                sources = [
                    [s for m in members for s in sources[m]] for members in groups
                ]
                x = torch.stack([x[0], *merged])
            if early:
                x = x + block.mlp(block.ln_2(x))
        labels = torch.empty(sum(map(len, sources)), dtype=torch.int64)
        for index, members in enumerate(sources):
            labels[members] = index
        results.append(((visual.ln_post(x) @ visual.proj)[1:][labels], labels))
    tokens, labels = zip(*results, strict=True)
    return torch.stack(tokens).float(), torch.stack(labels)


@pytest.mark.parametrize('options', list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize('num_merged', [(5, 4), (0, 7), (8, 4)])
def test_bipartite_merging_is_that_of_loops(
    num_merged, options, clip, clip_config, clip_file
):
    generator = build(
        clip_config,
        clip_file,
        num_merged=num_merged,
        **dict(zip(TOME, options, strict=True)),
    )
    images = torch.randn(3, 3, 32, 32)
    tokens, (assignment,) = generator.targets(images)
    left = [16 - num_merged[0], 16 - sum(num_merged)]
    expected, labels = by_hand(clip, images, left, pairs_by_hand, *options)
    assert assignment.num_morphed == left[-1]
    assert torch.equal(assignment.labels, labels)
    assert tokens.shape == (3, 16, 16) and not tokens.requires_grad
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(generator(images), tokens)


@pytest.mark.parametrize(
    'num_clusters, left', [((10, 5), [10, 5]), (6, [6, 6])], ids=['falling', 'constant']
)
def test_kmeans_merging_is_that_of_loops(
    num_clusters, left, clip, clip_config, clip_file
):
    generator = build(
        clip_config,
        clip_file,
        merging='kmeans',
        num_clusters=num_clusters,
        num_iters=4,
    )
    images = torch.randn(3, 3, 32, 32)
    tokens, (assignment,) = generator.targets(images)
    expected, labels = by_hand(clip, images, left, lloyd)
    assert assignment.num_morphed == left[-1]
    assert torch.equal(assignment.labels, labels)
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('merging', ['bipartite', 'kmeans'])
def test_nothing_merged_is_upstreams_output_to_the_bit(merging, clip_config, clip_file):
    config = dict(model='tiny', pretrained=clip_file, model_config=clip_config)
    plain = OpenCLIPGenerator(**config)
    generator = MODELS.build(
        dict(
            type='LayerwiseMorphingGenerator',
            merging=merging,
            num_merged=0,
            num_clusters=16,
            **TOME,
            **config,
        )
    )
    for each in (plain, generator):
        each.set_student_grid((4, 4), 64)
    images = torch.randn(2, 3, 64, 64)
    tokens, (assignment,) = generator.targets(images)
    assert torch.equal(tokens, plain(images))
    assert torch.equal(assignment.labels, torch.arange(16).expand(2, -1))


@pytest.mark.slow
def test_compiles_without_a_graph_break(clip_config, clip_file):
    generator = build(clip_config, clip_file, num_merged=4, **TOME)
    images = torch.randn(2, 3, 32, 32)
    tokens, (assignment,) = generator.targets(images)
    compiled = torch.compile(generator.targets, backend='eager', fullgraph=True)
    again, (same,) = compiled(images)
    torch.testing.assert_close(again, tokens)
    assert torch.equal(assignment.labels, same.labels)


def test_it_takes_no_morphing(clip_config, clip_file):
    generator = build(clip_config, clip_file)
    generator.check_morphing(None)
    with pytest.raises(ValueError, match='merges tokens itself.*Set morphing=None'):
        generator.check_morphing(dict(type='IdentityMorphing'))


def test_bad_options_are_named(clip_config, clip_file):
    with pytest.raises(ValueError, match="one of ..bipartite', 'kmeans'"):
        build(clip_config, clip_file, merging='soft')
    for name, merging in (('num_merged', 'bipartite'), ('num_clusters', 'kmeans')):
        for wrong in (-1, (1, 1, 1)):
            with pytest.raises(
                ValueError, match=f"{name} is .* one for each of the teacher's 2 blocks"
            ):
                build(clip_config, clip_file, merging=merging, **{name: wrong})
    generator = build(clip_config, clip_file, num_merged=7)
    with pytest.raises(ValueError, match='in block 1, where 9 are left and at most 4'):
        generator.set_student_grid((4, 4), 32)
    generator = build(clip_config, clip_file, merging='kmeans', num_clusters=(8, 9))
    with pytest.raises(ValueError, match='9 clusters in block 1, where 8 tokens'):
        generator.set_student_grid((4, 4), 32)
    clip_config['vision_cfg'].update(attentional_pool=True)
    with pytest.raises(ValueError, match='pools by attention. Choose .*ViT-B-16-quick'):
        build(clip_config, None, random_weights=True)
    clip_config['vision_cfg'].update(attentional_pool=False, qk_norm=True)
    with pytest.raises(ValueError, match='CustomResidualAttentionBlocks.*plain blocks'):
        build(clip_config, None, random_weights=True)
