"""DTM: one training step, from the uint8 crop to the update."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper


def run_loss(model, data) -> torch.Tensor:
    data = model.data_preprocessor(data, training=True)
    return model(**data, mode='loss')['loss']


@pytest.mark.parametrize(
    'morphing',
    [
        dict(type='BipartiteMorphing', levels=2, num_morphed=5, num_iters=3, seed=0),
        dict(type='BipartiteMorphing', levels=1, num_morphed=1, num_iters=15),
        dict(type='IdentityMorphing'),
    ],
    ids=['groups', 'images', 'tokens'],
)
def test_loss_is_that_of_the_parts_by_hand(dtm_cfg, build, batch, morphing):
    """Project, group by the teacher's labels, compare by cosine; in loops.

    Masked and visible tokens count alike.
    """
    dtm_cfg['morphing'] = morphing
    model = build(dtm_cfg)
    data = model.data_preprocessor(batch(), training=True)
    student_view, teacher_view = data['inputs']
    mask = torch.stack([s.mask for s in data['data_samples']])
    latent = model.backbone(student_view, mask)[-1]
    online = model.head.projection(latent[:, 1:]).double()
    target = model.target_generator(teacher_view).double()
    labels = [a.labels for a in copy.deepcopy(model.morphing)(target)]
    terms = []
    for level in labels:
        for image in range(4):
            for group in level[image].unique():
                members = level[image] == group
                u, v = online[image, members].mean(0), target[image, members].mean(0)
                distance = 1 - u @ v / u.norm() / v.norm()
                terms.append(members.sum() * distance)
    expected = sum(terms) / (len(labels) * 4 * 16)
    loss = model(**data, mode='loss')['loss']
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_teacher_sees_the_unmasked_crop(dtm_cfg, build, batch):
    model = build(dtm_cfg)
    data = batch()
    views = model.data_preprocessor(data, training=True)['inputs']
    rgb = data['inputs'].flip(1).float()  # OpenMMLab loads BGR
    mean = torch.tensor([122.7709383, 116.7460125, 104.0937362]).view(3, 1, 1)
    std = torch.tensor([68.5005327, 66.6321579, 70.3231630]).view(3, 1, 1)
    torch.testing.assert_close(views[1], (rgb - mean) / std, rtol=1e-5, atol=1e-5)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    torch.testing.assert_close(views[0], (rgb - mean) / std, rtol=1e-5, atol=1e-5)


def test_given_target_norm_wins_over_the_teachers(dtm_cfg, build):
    dtm_cfg['data_preprocessor'].update(target_mean=[1, 2, 3], target_std=[4, 5, 6])
    model = build(dtm_cfg)
    mean, std = model.data_preprocessor.view_norm(1)
    assert (mean.flatten().tolist(), std.flatten().tolist()) == ([1, 2, 3], [4, 5, 6])


def test_accumulation_equals_the_doubled_batch(dtm_cfg, build, batch):
    dtm_cfg['morphing'].update(num_morphed=6, num_iters=2)  # every draw alike
    whole = build(dtm_cfg)
    start, halved = copy.deepcopy(whole.state_dict()), copy.deepcopy(whole)
    data = batch(4)
    halves = [
        dict(
            inputs=data['inputs'][i : i + 2],
            data_samples=data['data_samples'][i : i + 2],
        )
        for i in (0, 2)
    ]
    for model, batches in ((whole, [data]), (halved, halves)):
        wrapper = OptimWrapper(
            torch.optim.SGD(model.parameters(), lr=1.0),
            accumulative_counts=len(batches),
            clip_grad=dict(max_norm=3.0),
        )
        wrapper.initialize_count_status(model, 0, len(batches))
        for part in batches:
            model.train_step(part, wrapper)
    other = halved.state_dict()
    for name, value in whole.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6)
    moved = (whole.head.projection.weight - start['head.projection.weight']).abs().max()
    assert moved > 1e-5


def test_overfitting_one_batch_lowers_the_loss(dtm_cfg, build, batch, overfit):
    losses = overfit(build(dtm_cfg), batch(), steps=60, lr=2e-3)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5]), losses


def test_draws_go_on_after_a_restart(dtm_cfg, build, batch):
    dtm_cfg['morphing'].update(seed=None)
    torch.manual_seed(11)
    unbroken = build(dtm_cfg)
    first = [run_loss(unbroken, batch(seed=i)).item() for i in range(3)]
    saved = copy.deepcopy(unbroken.state_dict())
    rest = [run_loss(unbroken, batch(seed=i)).item() for i in range(3)]
    torch.manual_seed(12)  # another seed, as a resumed process may well have
    resumed = build(dtm_cfg)
    resumed.load_state_dict(saved)
    assert [run_loss(resumed, batch(seed=i)).item() for i in range(3)] == rest
    assert first != rest  # the same images, other draws


def test_samples_without_masks_are_refused(dtm_cfg, build, batch):
    model, data = build(dtm_cfg), batch()
    for sample in data['data_samples']:
        del sample.mask
    with pytest.raises(ValueError, match='BlockMaskGenerator'):
        run_loss(model, data)


def test_half_a_target_norm_is_refused(dtm_cfg, build):
    dtm_cfg['data_preprocessor'].update(target_mean=[1, 2, 3])
    with pytest.raises(ValueError, match='Give both, or neither'):
        build(dtm_cfg)
