"""What holds for every framework with DTM, one test a property."""

import pytest
import torch
from mmengine.runner.checkpoint import get_state_dict

from mmdtm.models.target_generators.frozen import FrozenTower

pytestmark = pytest.mark.usefixtures('max_iters')
BIPARTITE = dict(type='BipartiteMorphing', num_iters=(1, 4))
IDENTITY = dict(type='IdentityMorphing')

# Framework, its morphing (its teacher merges, or it has no DTM: None), and towers.
VARIANTS = [
    ('dtm', BIPARTITE, 1),
    ('dtm', IDENTITY, 1),
    ('mae', BIPARTITE, 1),
    ('mae', IDENTITY, 1),
    ('beit', BIPARTITE, 2),
    ('beit', None, 1),
    ('byol', BIPARTITE, 0),
    ('byol', None, 0),
    # The rows of table 2.
    ('distil', BIPARTITE, 1),
    ('distil', IDENTITY, 1),
    ('distil', dict(type='DownsampleMorphing', stride=2), 1),
    ('distil', None, 1),
]


@pytest.fixture
def config(request, dtm_part):
    """Config of a framework, with a morphing or without DTM."""

    def make(framework: str, morphing: dict | None = BIPARTITE) -> dict:
        cfg = request.getfixturevalue(f'{framework}_cfg')
        if framework in ('dtm', 'distil'):
            cfg['morphing'] = morphing
            if morphing is None:  # merged inside the teacher
                cfg['target_generator'].update(
                    type='LayerwiseMorphingGenerator', num_merged=3
                )
        elif morphing is None:
            cfg['dtm'] = None
        else:
            cfg['dtm'] = dtm_part
            dtm_part['morphing'] = morphing
            if framework == 'byol':
                del dtm_part['target_generator']
        return cfg

    return make


@pytest.fixture
def step_data(batch, views):
    """What the loss of a framework takes."""

    def make(framework: str, model) -> dict:
        if framework == 'byol':
            return dict(inputs=views(), data_samples=None)
        data = batch()
        if framework == 'distil':  # its pipeline draws no masks
            for sample in data['data_samples']:
                del sample.mask
        return model.data_preprocessor(data, training=True)

    return make


@pytest.mark.parametrize(('framework', 'morphing', 'towers'), VARIANTS)
def test_all_that_trains_gets_a_gradient_and_no_teacher_trains(
    framework, morphing, towers, config, build, step_data
):
    model = build(config(framework, morphing))
    losses = model(**step_data(framework, model), mode='loss')
    stem = model.backbone.patch_embed.projection.weight
    for name, value in losses.items():  # each of them trains the student
        assert torch.autograd.grad(value, stem, retain_graph=True)[0].any(), name
    model.parse_losses(losses)[0].backward()
    for name, p in model.named_parameters():
        if name.startswith('target_net.') or framework == 'mae' and 'pos_embed' in name:
            assert not p.requires_grad, name  # the momentum encoder; sines
            assert p.grad is None, name
        else:
            assert p.grad is not None and p.grad.abs().sum() > 0, name
    trained = set(map(id, model.parameters()))
    found = {n: m for n, m in model.named_modules() if isinstance(m, FrozenTower)}
    assert len(found) == towers
    for prefix, tower in found.items():
        assert not any(module.training for module in tower.teacher.modules())
        for p in tower.teacher.parameters():
            assert p.grad is None and not p.requires_grad and id(p) not in trained
        for state_dict in (model.state_dict(), get_state_dict(model)):
            assert state_dict and not [k for k in state_dict if k.startswith(prefix)]


@pytest.mark.parametrize('framework', ['dtm', 'mae', 'beit', 'byol', 'distil'])
def test_features_are_those_of_the_first_view_unmasked(
    framework, config, build, step_data
):
    model = build(config(framework)).eval()
    views = step_data(framework, model)['inputs']
    options = {} if framework in ('dtm', 'byol', 'distil') else dict(mask=None)
    expected = model.backbone(views[0], **options)
    assert expected[-1].shape == (4, 17, 48)
    for inputs in (views, views[0]):
        features = model(inputs, mode='tensor')
        assert all(map(torch.equal, features, expected))


@pytest.mark.parametrize('framework', ['dtm', 'mae', 'beit', 'byol', 'distil'])
def test_heads_have_the_width_of_both_sides_and_are_initialised(
    framework, config, build
):
    model = build(config(framework))
    head = model.head if framework in ('dtm', 'distil') else model.dtm.head
    student, target = dict(mae=36).get(framework, 48), dict(byol=48).get(framework, 24)
    assert head.projection.weight.shape == (target, student)
    # BEiT's start: normal(0.02), cut at one deviation.
    assert head.projection.weight.std().item() == pytest.approx(0.0108, rel=0.1)
    assert head.projection.weight.abs().max() <= 0.02
    assert not head.projection.bias.any()


@pytest.mark.parametrize('framework', ['dtm', 'mae', 'beit', 'byol', 'distil'])
def test_a_missing_morphing_is_refused(framework, config, build):
    cfg = config(framework)
    cfg.get('dtm', cfg)['morphing'] = None
    with pytest.raises(ValueError, match='Give a morphing'):
        build(cfg)
