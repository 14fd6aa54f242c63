"""Patch-wise zero-shot classification against open_clip and plain loops."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import json
import math

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_clip import CONFIG, TEMPLATES, save_tiny_clip

from mmdtm.evaluation.patch_zero_shot import (
    ZeroShotCLIP,
    class_distances,
    ensemble,
    judge,
    morph_tokens,
    patch_features,
    patch_logits,
)
from mmdtm.models.target_generators import OpenCLIPGenerator
from mmdtm.morphing import TokenAssignment

NAMES = ['tench', 'great white shark', 'hen', 'ostrich', 'bulbul']


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp('clip'))


@pytest.fixture(scope='module')
def clip(saved):
    return ZeroShotCLIP('tiny', saved[1], saved[0])


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


def test_image_feature_classifies_as_open_clip_does(saved, clip):
    config, weights, _ = saved
    open_clip.add_model_config(config)
    reference, _, preprocess = open_clip.create_model_and_transforms(
        'tiny', pretrained=weights
    )
    reference.eval()
    tokenizer = open_clip.get_tokenizer('tiny')
    colors = ['red', 'white', 'navy', 'black', 'yellow', 'cyan', 'magenta', 'grey']
    photos = [Image.effect_noise((56, 40), 60).convert('RGB')]
    photos += [Image.new('RGB', (40, 56), color) for color in colors]
    expected_classifier = open_clip.build_zero_shot_classifier(
        reference, tokenizer, NAMES, TEMPLATES
    )
    with torch.no_grad():
        images = torch.stack([preprocess(photo) for photo in photos])
        expected = reference.encode_image(images, normalize=True) @ expected_classifier
    ours = torch.stack([clip.transform(photo) for photo in photos])
    torch.testing.assert_close(ours, images)
    feature, _ = clip(ours)
    logits = patch_logits(feature, clip.classifier(NAMES, TEMPLATES))
    torch.testing.assert_close(logits, expected)
    assert logits.argmax(1).tolist() == expected.argmax(1).tolist()
    assert len(set(logits.argmax(1).tolist())) > 1  # not one answer for all


def test_tokens_are_the_teachers(saved, clip):
    generator = OpenCLIPGenerator('tiny', saved[1], saved[0])
    images = torch.randn(2, 3, 32, 32)
    _, tokens = clip(images)
    assert tokens.shape == (2, 16, 16)
    torch.testing.assert_close(tokens, generator(images))


@pytest.mark.parametrize('quick_gelu', [False, True])
def test_both_towers_have_the_activation_of_the_config(tmp_path, quick_gelu):
    config, weights, reference = save_tiny_clip(tmp_path, quick_gelu=quick_gelu)
    clip = ZeroShotCLIP('tiny', weights, config)
    text = clip.tokenizer(['a hen'])
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = reference.encode_text(text, normalize=True)
        torch.testing.assert_close(
            clip.clip.encode_text(text, normalize=True), expected
        )
        expected = reference.encode_image(images, normalize=True)
    torch.testing.assert_close(clip(images)[0], expected)


def test_custom_text_tower_is_loaded(tmp_path):
    config, weights, _ = save_tiny_clip(tmp_path)
    reference = open_clip.CustomTextCLIP(**CONFIG).eval()
    (tmp_path / 'custom.json').write_text(json.dumps({**CONFIG, 'custom_text': True}))
    torch.save(reference.state_dict(), tmp_path / 'custom.pt')
    clip = ZeroShotCLIP(
        'custom', str(tmp_path / 'custom.pt'), str(tmp_path / 'custom.json')
    )
    text = clip.tokenizer(['a hen'])
    with torch.no_grad():
        torch.testing.assert_close(
            clip.clip.encode_text(text), reference.encode_text(text)
        )


def test_an_image_tower_alone_is_refused(saved, tmp_path):
    config, _, reference = saved
    visual = {k: v for k, v in reference.state_dict().items() if 'visual.' in k}
    torch.save(visual, tmp_path / 'visual.pt')
    with pytest.raises(ValueError, match=r'visual\.pt.*missing.*positional_embedding'):
        ZeroShotCLIP('tiny', str(tmp_path / 'visual.pt'), config)


def test_predictions_equal_a_plain_loop():
    tokens = torch.randn(2, 9, 6, dtype=torch.float64)
    classifier = unit(4, 6).double()
    targets = torch.tensor([1, 3])
    labels = torch.tensor([[0, 1, 0, 2, 2, 3, 1, 1, 3], [3, 2, 1, 0, 0, 0, 0, 1, 1]])
    scale = 7.5
    distances = class_distances(classifier)
    logits = patch_logits(
        patch_features(tokens, TokenAssignment(labels, 4)), classifier, scale
    )
    found = judge(logits, targets, distances)
    for b in range(2):
        means = dict(logits=[0.0] * 4, probabilities=[0.0] * 4)
        true = classifier[targets[b]]
        farthest = max(1 - float(true @ other) for other in classifier)
        for i in range(9):
            members = [j for j in range(9) if labels[b, j] == labels[b, i]]
            mean = sum(tokens[b, j] for j in members) / len(members)
            cosines = [
                float(mean @ text / mean.norm() / text.norm()) for text in classifier
            ]
            exponentials = [math.exp(scale * cosine) for cosine in cosines]
            probabilities = [e / sum(exponentials) for e in exponentials]
            best = max(range(4), key=cosines.__getitem__)
            assert found.predicted[b, i] == best
            assert found.right[b, i] == (best == targets[b])
            distance = 0 if best == targets[b] else 1 - float(true @ classifier[best])
            assert found.distance[b, i].item() == pytest.approx(distance / farthest)
            for c in range(4):
                means['probabilities'][c] += probabilities[c] / 9
                means['logits'][c] += scale * cosines[c] / 9
        for scores, mean in means.items():
            assert ensemble(logits, scores)[b].tolist() == pytest.approx(mean)
        assert found.image[b] == max(range(4), key=means['logits'].__getitem__)
    with pytest.raises(ValueError, match="'logit'. Give one of"):
        ensemble(logits, 'logit')


def test_identity_morphing_changes_nothing():
    tokens = torch.randn(3, 16, 8)
    identity = morph_tokens(tokens, 16, 3)
    assert torch.equal(patch_features(tokens, identity), patch_features(tokens))


def test_all_patches_of_a_group_agree():
    tokens = torch.randn(2, 16, 8)
    assignment = morph_tokens(tokens, 5, 4)
    assert assignment.num_morphed == 5
    features = patch_features(tokens, assignment)
    for b in range(2):
        for group in range(5):
            members = features[b, assignment.labels[b] == group]
            assert torch.equal(members, members[:1].expand_as(members))


def test_an_unreachable_number_of_tokens_is_refused():
    with pytest.raises(ValueError, match='into 3 in 1 iteration.*only into 8'):
        morph_tokens(torch.randn(1, 16, 4), 3, 1)


def test_distances_run_from_zero_to_one():
    distances = class_distances(unit(6, 5))
    assert torch.equal(distances.diagonal(), torch.zeros(6))
    torch.testing.assert_close(distances.amax(dim=1), torch.ones(6))
    assert class_distances(unit(1, 5)).tolist() == [[0.0]]
