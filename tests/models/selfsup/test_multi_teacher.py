"""Two teachers at once: losses added, or tokens side by side."""

import copy

import pytest
import torch
import torch.nn.functional as F

DINO = dict(type='TimmGenerator', model='test_vit', random_weights=True)


@pytest.fixture
def two_cfg(dtm_cfg) -> dict:
    """CLIP and a ViT of timm, whose input is 160 pixels: 10 x 10 patches by itself."""
    dtm_cfg['morphing'].update(num_morphed=6, num_iters=3)
    second = dict(
        target_generator=DINO,
        morphing=dict(type='BipartiteMorphing', num_iters=(1, 4), seed=1),
        weight=0.5,
    )
    return dict(dtm_cfg, type='MultiTeacherDTM', more_teachers=dict(dino=second))


def losses_of(model, batch) -> dict[str, torch.Tensor]:
    return model(**model.data_preprocessor(batch(), training=True), mode='loss')


def test_losses_are_those_of_each_teacher_by_hand(two_cfg, build, batch):
    model = build(two_cfg)
    branch = model.more_teachers['dino']
    data = model.data_preprocessor(batch(), training=True)
    mask = torch.stack([sample.mask for sample in data['data_samples']])
    latent = model.backbone(data['inputs'][0], mask)[-1][:, 1:]
    expected, parts = {}, dict(loss=(model, 1.0), loss_dino=(branch, 0.5))
    for view, (name, (part, weight)) in enumerate(parts.items(), 1):
        target = part.target_generator(data['inputs'][view])
        online = part.head.projection(latent)
        groups = copy.deepcopy(part.morphing)(target)
        terms = [
            (1 - F.cosine_similarity(level.morph(online), level.morph(target), dim=2))
            * level.sizes()
            for level in groups
        ]
        expected[name] = weight * sum(t.sum() for t in terms) / (len(terms) * 4 * 16)
    losses = model(**data, mode='loss')
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, sum(expected.values()))
    # Each its own view and its own groups, in the student's grid.
    assert branch.target_generator.input_size == (64, 64)
    assert branch.target_generator.view == 2
    assert model.morphing.draw_state[1] == branch.morphing.draw_state[1] == 1


def test_all_that_trains_gets_a_gradient_from_both(two_cfg, build, batch):
    model = build(two_cfg)
    losses = losses_of(model, batch)
    stem = model.backbone.patch_embed.projection.weight
    for value in losses.values():
        assert torch.autograd.grad(value, stem, retain_graph=True)[0].any()
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert not [key for key in model.state_dict() if 'target_generator' in key]


def test_a_weight_of_0_leaves_the_single_teacher(two_cfg, dtm_cfg, build, batch):
    two_cfg['more_teachers']['dino']['weight'] = 0
    two, one = build(two_cfg), build(dict(dtm_cfg, type='DTM'))
    two.load_state_dict(one.state_dict(), strict=False)
    gradients = []
    for model in (two, one):
        loss, _ = model.parse_losses(losses_of(model, batch))
        loss.backward()
        gradients.append([loss, *(p.grad for p in model.backbone.parameters())])
    for mine, other in zip(*gradients, strict=True):
        assert torch.equal(mine, other)


def test_each_teacher_may_have_its_own_grid(two_cfg, build, batch):
    two_cfg['more_teachers']['dino']['head'] = dict(grid_size=8)
    model = build(two_cfg)
    grids = [
        part.target_generator.grid_size for part in (model, model.more_teachers['dino'])
    ]
    assert grids == [(4, 4), (8, 8)]
    assert all(value.isfinite() for value in losses_of(model, batch).values())


@pytest.mark.parametrize('summed', [True, False])
def test_grids_that_cannot_agree_are_refused(two_cfg, build, summed):
    fixed = dict(DINO, model='tnt_s_legacy_patch16_224')
    two_cfg['more_teachers']['dino']['target_generator'] = fixed
    if not summed:
        two_cfg['type'] = 'DTM'
        del two_cfg['more_teachers']
        two_cfg['target_generator'] = dict(
            type='ConcatGenerator', teachers=[two_cfg['target_generator'], fixed]
        )
    with pytest.raises(ValueError, match='14x14 .* student 4x4 .* or another teacher'):
        build(two_cfg)


def test_tokens_side_by_side_are_as_alike_as_on_average(dtm_cfg, build, batch):
    teachers = [dict(dtm_cfg['target_generator']), DINO]
    dtm_cfg['target_generator'] = dict(type='ConcatGenerator', teachers=teachers)
    model = build(dtm_cfg)
    data = model.data_preprocessor(batch(), training=True)
    tokens = model.target_generator(data['inputs'][1])
    pixels = batch()['inputs'].flip(1).double()
    expected = []
    for teacher in model.target_generator.teachers:
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (teacher.mean, teacher.std))
        expected.append(F.normalize(teacher((pixels - mean) / std), dim=2))
    torch.testing.assert_close(tokens, torch.cat(expected, 2), rtol=1e-4, atol=1e-5)
    cosines = [v @ v.mT for v in (F.normalize(tokens, dim=2), *expected)]
    torch.testing.assert_close(cosines[0], (cosines[1] + cosines[2]) / 2)
    assert model.head.projection.out_features == 24 + 64 == tokens.shape[2]

    model(**data, mode='loss')['loss'].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    assert not [key for key in model.state_dict() if 'target_generator' in key]


def test_one_teacher_alone_is_not_concatenated(dtm_cfg, build):
    teachers = [dtm_cfg['target_generator']]
    dtm_cfg['target_generator'] = dict(type='ConcatGenerator', teachers=teachers)
    with pytest.raises(ValueError, match='1 teacher.*Give two or more'):
        build(dtm_cfg)
