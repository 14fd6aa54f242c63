"""Table 13 read back from what the fine-tuning configs build, and a small run."""

import copy
from pathlib import Path

import pytest
import torch
from made_data import (
    CONFIGS,
    TINY,
    check_layer_decay,
    draw_imagenet,
    for_cpu,
    load,
    rates,
)
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, DefaultScope
from mmpretrain.registry import DATASETS, MODELS

from mmdtm.engine.launch import build_runner, fit_to_device

# Table 13: epochs, warm-up epochs, layer decay, drop path; sizes of table 12.
TABLE_13 = {
    'finetune/dtm_vit-s_300e_in1k': (300, 10, 0.6, 0.1, 384, 12),
    'finetune/dtm_vit-b_100e_in1k': (100, 10, 0.6, 0.1, 768, 12),
    'finetune/dtm_vit-l_50e_in1k': (50, 5, 0.8, 0.2, 1024, 24),
}
PROBES = {'linear_probe/dtm_vit-b_25e_in1k': 25, 'linear_probe/dtm_vit-b_50e_in1k': 50}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.mark.parametrize('name', TABLE_13)
def test_table_13_model_and_optimizer(name, fast_init):
    _, _, decay, drop_path, width, depth = TABLE_13[name]
    cfg = load(name)
    model = MODELS.build(cfg.model)

    backbone = model.backbone
    assert (backbone.embed_dims, len(backbone.layers)) == (width, depth)
    assert backbone.img_size == (224, 224)
    assert backbone.patch_size == 16
    assert backbone.layers[0].drop_path.drop_prob == 0
    assert backbone.layers[-1].drop_path.drop_prob == pytest.approx(drop_path)
    assert model.head.fc.in_features == width
    assert model.head.fc.out_features == model.data_preprocessor.num_classes == 1000
    assert model.head.loss_module.label_smooth_val == 0.1
    augments = model.data_preprocessor.batch_augments
    assert [(type(a).__name__, a.alpha) for a in augments.augments] == [
        ('Mixup', 0.8),
        ('CutMix', 1.0),
    ]

    cfg.launcher = 'none'
    fit_to_device(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    check_layer_decay(wrapper, 5e-4, decay, depth)


@pytest.mark.parametrize('name', TABLE_13)
def test_table_13_schedule(name):
    epochs, warm_up, decay, _, _, depth = TABLE_13[name]
    cfg = load(name)
    assert cfg.train_cfg.max_epochs == epochs
    lowest = 5e-4 * decay ** (depth + 1)
    lr = rates(cfg, [5e-4, lowest])
    assert lr[:, 0].argmax() == warm_up * 10 - 1  # the last warm-up iteration
    assert lr[:, 0].max() == pytest.approx(5e-4)
    assert (lr[: warm_up * 10, 0].diff() > 0).all()
    assert (lr[warm_up * 10 : -1, 0].diff() < 0).all()
    assert lr[-1, 0].item() == pytest.approx(1e-6, rel=1e-2)  # one step short of it
    # Half-way through the cosine the rate is the mean of its ends.
    middle = lr[(warm_up + epochs) * 5, 0].item()
    assert middle == pytest.approx((5e-4 + 1e-6) / 2, rel=1e-3)
    # Decayed layers keep their proportion, down to the end.
    torch.testing.assert_close(
        lr[:, 1] / lr[:, 0], torch.full((len(lr),), lowest / 5e-4).double()
    )


@pytest.mark.parametrize('name', TABLE_13)
def test_table_13_data(name, tmp_path):
    draw_imagenet(tmp_path)
    cfg = load(name)
    assert 8 * cfg.train_dataloader.batch_size == 1024
    assert cfg.auto_scale_lr.base_batch_size == 1024
    for_cpu(cfg, tmp_path, tmp_path)
    train = DATASETS.build(cfg.train_dataloader.dataset)
    named = {type(t).__name__: t for t in train.pipeline.transforms}
    assert named['RandomResizedCrop'].scale == (224, 224)
    assert named['RandAugment'].magnitude_level == 9
    assert named['RandAugment'].magnitude_std == 0.5
    assert named['RandomErasing'].erase_prob == 0.25
    assert train[0]['inputs'].shape == (3, 224, 224)
    val = DATASETS.build(cfg.val_dataloader.dataset)
    assert val[0]['inputs'].shape == (3, 224, 224)
    # The first, the second and the last of ImageNet's labels.
    labels = [int(item['data_samples'].gt_label) for item in val]
    assert labels == [0, 0, 1, 1, 999, 999]
    assert cfg.test_dataloader == cfg.val_dataloader
    assert tuple(cfg.test_evaluator.topk) == (1, 5)


def test_patch_tokens_are_averaged_before_the_norm():
    cfg = load('finetune/dtm_vit-b_100e_in1k')
    cfg.model.backbone.update(arch=TINY, img_size=64, init_cfg=None)
    backbone = MODELS.build(cfg.model.backbone).eval()
    cfg.model.backbone.out_type = 'raw'
    raw = MODELS.build(cfg.model.backbone).eval()
    torch.nn.init.normal_(backbone.ln2.weight)
    raw.load_state_dict(backbone.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = raw(images)[-1][:, 1:]
        expected = backbone.ln2(tokens.mean(1))
        torch.testing.assert_close(backbone(images)[-1], expected)


def tiny_run(name: str, root: Path, work_dir: Path):
    cfg = load(name)
    for_cpu(cfg, root, work_dir)
    cfg.model.backbone.update(arch=TINY)
    if cfg.model.backbone.get('frozen_stages', -1) > 0:
        cfg.model.backbone.frozen_stages = TINY['num_layers']
    if 'neck' in cfg.model:
        cfg.model.neck.input_features = TINY['embed_dims']
    cfg.model.head.in_channels = TINY['embed_dims']
    cfg.train_cfg.max_epochs = 1
    return cfg


@pytest.mark.parametrize(('name', 'epochs'), PROBES.items())
def test_linear_probe_schedule(name, epochs):
    cfg = load(name)
    assert cfg.train_cfg.max_epochs == epochs
    lr = rates(cfg, [1.6])[:, 0]
    assert lr.max() == pytest.approx(1.6)
    assert lr.argmax() == 5 * 10 - 1
    assert lr[-1] == pytest.approx(0, abs=1e-3)
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.1 * 4096 / 256)


def test_linear_probe_trains_the_head_alone(tmp_path):
    draw_imagenet(tmp_path / 'data')
    cfg = tiny_run('linear_probe/dtm_vit-b_25e_in1k', tmp_path / 'data', tmp_path)
    runner = build_runner(cfg)
    model = runner.model
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names == ['head.fc.weight', 'head.fc.bias']
    before = {name: p.clone() for name, p in model.named_parameters()}
    runner.train()
    changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert changed == names
    assert not any(m.training for m in model.backbone.layers.modules())
    assert model.neck.bn.running_mean.abs().sum() > 0
    assert model.neck.bn.weight is None


def test_checkpoint_is_the_only_override(tmp_path):
    """As in the run card: model.backbone.init_cfg.checkpoint=X.pth."""
    cfg = load('finetune/dtm_vit-b_100e_in1k')
    student = MODELS.build(dict(type='DTMPretrainViT', arch=TINY, img_size=64))
    for module in (student.rel_pos_bias, *(layer.attn for layer in student.layers)):
        torch.nn.init.normal_(module.relative_position_bias_table)
    state = {f'backbone.{name}': value for name, value in student.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'pretrained.pth')

    cfg.merge_from_dict(
        {'model.backbone.init_cfg.checkpoint': str(tmp_path / 'pretrained.pth')}
    )
    cfg.model.backbone.update(arch=TINY, img_size=64)
    cfg.model.head.in_channels = TINY['embed_dims']
    model = MODELS.build(cfg.model)
    model.init_weights()
    table = 'relative_position_bias_table'
    for ours, theirs in zip(model.backbone.layers, student.layers, strict=True):
        expected = getattr(theirs.attn, table) + getattr(student.rel_pos_bias, table)
        torch.testing.assert_close(getattr(ours.attn, table), expected)
        torch.testing.assert_close(
            ours.ffn.layers[1].weight, theirs.ffn.layers[1].weight
        )


def test_without_a_checkpoint_the_way_out_is_said():
    cfg = load('finetune/dtm_vit-b_100e_in1k')
    cfg.model.backbone.update(arch=TINY, img_size=64)
    with pytest.raises(ValueError, match=r'init_cfg\.checkpoint=.*init_cfg=None'):
        MODELS.build(cfg.model.backbone).init_weights()
    cfg.merge_from_dict({'model.backbone.init_cfg': None})
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    assert backbone.layers[0].attn.qkv.weight.std() > 0.01


@pytest.mark.parametrize(
    ('state', 'message'),
    [
        ({'fc.weight': torch.zeros(1)}, r"c\.pth: no parameter's .* 'backbone\.'"),
        (
            {'backbone.cls_token': torch.zeros(1, 1, 7)},
            r'c\.pth: .*cls_token is \(1, 1, 7\)',
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(state, message, tmp_path):
    torch.save(dict(state_dict=state), tmp_path / 'c.pth')
    cfg = load('finetune/dtm_vit-b_100e_in1k').model.backbone
    cfg.update(arch=TINY)
    cfg.init_cfg.checkpoint = str(tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg).init_weights()


@pytest.mark.slow
def test_own_classes_need_their_number(tmp_path):
    """As docs/finetuning.md: classes=None, and num_classes in two places."""
    draw_imagenet(tmp_path / 'data')
    cfg = tiny_run('finetune/dtm_vit-b_100e_in1k', tmp_path / 'data', tmp_path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.classes = None
    cfg.val_evaluator.topk = (1,)  # of three classes
    wrong = copy.deepcopy(cfg)
    message = r'3 classes.*data_preprocessor\.num_classes=3 model\.head\.num_classes=3'
    with pytest.raises(ValueError, match=message):
        build_runner(wrong).train()
    cfg.model.head.num_classes = cfg.model.data_preprocessor.num_classes = 3
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 3


def test_feature_probe_can_be_taken_in(tmp_path):
    """As docs/finetuning.md, over a pre-training config."""
    draw_imagenet(tmp_path)
    (tmp_path / 'probed.py').write_text(f"""
_base_ = ['{CONFIGS}/dtm_vit-b_300e.py', '{CONFIGS}/_base_/feature_probe.py']
custom_hooks = [*_base_.custom_hooks, _base_.feature_probe]
""")
    cfg = Config.fromfile(tmp_path / 'probed.py')
    assert cfg.custom_hooks[:-1] == load('dtm_vit-b_300e').custom_hooks
    hook = HOOKS.build(cfg.custom_hooks[-1])
    for loader in hook.loader_cfgs:
        loader['dataset']['data_root'] = str(tmp_path)
        loader.update(num_workers=0)
    hook.before_train(None)
    assert hook.interval == 10
    assert [len(loader.dataset) for loader in hook.loaders] == [6, 6]
    batch = next(iter(hook.loaders[1]))
    assert batch['inputs'].shape == (6, 3, 224, 224)


def test_larger_images_at_test_time(tmp_path):
    """As docs/finetuning.md: 384 pixels for a model trained at 224."""
    draw_imagenet(tmp_path / 'data', images=1)
    cfg = tiny_run('finetune/dtm_vit-b_100e_in1k', tmp_path / 'data', tmp_path)
    cfg.merge_from_dict(
        {
            'test_dataloader.dataset.pipeline.1.scale': 438,
            'test_dataloader.dataset.pipeline.2.crop_size': 384,
        }
    )
    runner = build_runner(cfg)
    batch = next(iter(runner.build_dataloader(cfg.test_dataloader)))
    assert batch['inputs'].shape[-2:] == (384, 384)
    assert cfg.val_dataloader.dataset.pipeline[2].crop_size == 224
    with torch.no_grad():
        samples = runner.model.eval().test_step(batch)
    assert samples[0].pred_score.shape == (1000,)
