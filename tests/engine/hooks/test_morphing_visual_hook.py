"""The hook's picture, and that training does not notice it."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import copy
import io
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS
from mmpretrain.structures import DataSample
from PIL import Image
from tiny import dtm_config

from mmdtm.engine.hooks import MorphingVisualHook
from mmdtm.visualization import morphing_sheet, render

MODEL = dtm_config()
MODEL['morphing'].update(partition='random')


@DATASETS.register_module()
class MaskedNoise(torch.utils.data.Dataset):
    """Eight images of noise, BGR, each with a block of four masked patches."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        noise = np.random.default_rng(index)
        image = torch.from_numpy(noise.integers(0, 256, (3, 64, 64), np.uint8))
        sample = DataSample()
        sample.mask = torch.zeros(4, 4, dtype=torch.bool)
        sample.mask[:2, index % 3 : index % 3 + 2] = True
        return dict(inputs=image, data_samples=sample)


def make_runner(work_dir, hooks=(), model=MODEL):
    return Runner.from_cfg(
        Config(
            dict(
                default_scope='mmpretrain',
                work_dir=str(work_dir),
                model=copy.deepcopy(model),
                train_dataloader=dict(
                    batch_size=4,
                    num_workers=0,
                    dataset=dict(type='MaskedNoise'),
                    sampler=dict(type='DefaultSampler', shuffle=True),
                    collate_fn=dict(type='default_collate'),
                ),
                train_cfg=dict(by_epoch=True, max_epochs=2),
                optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
                default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
                custom_hooks=list(hooks),
                visualizer=dict(
                    type='Visualizer',
                    vis_backends=[
                        dict(type='LocalVisBackend'),
                        dict(type='TensorboardVisBackend'),
                    ],
                ),
                randomness=dict(seed=3),
                experiment_name=f'{work_dir.parent.name}_{work_dir.name}',
            )
        )
    )


def test_picture_reaches_every_backend_and_training_goes_on_unchanged(tmp_path):
    hook = dict(type='MorphingVisualHook', interval=2, num_images=3, side=64)
    watched = make_runner(tmp_path / 'watched', [hook])
    watched.train()
    plain = make_runner(tmp_path / 'plain')
    plain.train()
    expected = plain.model.state_dict()
    for name, value in watched.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert watched.model.morphing.draw_state.tolist()[1] == 4
    assert watched.model.morphing.training

    pictures = sorted((tmp_path / 'watched').rglob('vis_image/*.png'))
    assert [picture.name for picture in pictures] == [
        'morphing_2.png',
        'morphing_4.png',
    ]
    local = np.asarray(Image.open(pictures[1]))
    assert local.shape[0] > 3 * 64 and local.shape[1] > 4 * 64

    accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    events = next((tmp_path / 'watched').rglob('events.out.tfevents.*'))
    reader = accumulator.EventAccumulator(str(events), {'images': 0})
    reader.Reload()
    shown = reader.Images('morphing')
    assert [event.step for event in shown] == [2, 4]
    decoded = np.asarray(Image.open(io.BytesIO(shown[1].encoded_image_string)))
    assert np.array_equal(decoded[..., :3], local)


def test_picture_shows_the_batch_its_masks_and_the_next_groups():
    model = MODELS.build(copy.deepcopy(MODEL)).train()
    samples = [MaskedNoise()[index] for index in range(4)]
    batch = dict(
        inputs=torch.stack([sample['inputs'] for sample in samples]),
        data_samples=[sample['data_samples'] for sample in samples],
    )
    picture = MorphingVisualHook(num_images=2).draw(model, batch)
    with torch.no_grad():
        view = model.data_preprocessor(batch)['inputs'][1]
        assignments = model.morphing(model.target_generator(view[:2]))
    images = batch['inputs'][:2].flip(1).permute(0, 2, 3, 1).numpy()
    masks = np.stack([sample['data_samples'].mask.numpy() for sample in samples[:2]])
    page = morphing_sheet(images, masks, assignments, (4, 4))
    assert np.array_equal(picture, render(page))


def test_drawing_leaves_random_state_and_mode_alone():
    model = MODELS.build(copy.deepcopy(MODEL)).train()
    batch = dict(
        inputs=torch.stack([MaskedNoise()[0]['inputs']] * 2),
        data_samples=[MaskedNoise()[0]['data_samples']] * 2,
    )
    before, state = torch.get_rng_state(), model.morphing.draw_state.clone()
    MorphingVisualHook().draw(model, batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.morphing.draw_state, state)
    assert all(module.training for module in model.backbone.modules())
    assert model.morphing.training


def test_other_processes_do_not_draw(tmp_path):
    runner = mock.Mock(iter=1)
    hook = MorphingVisualHook(interval=2)
    place = 'mmdtm.engine.hooks.morphing_visual_hook.is_main_process'
    with mock.patch(place, return_value=False):
        hook.after_train_iter(runner, 1, {})
    assert runner.visualizer.add_image.call_count == 0


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(interval=0), 'interval is 0. Give an int at least 1'),
        (dict(num_images=-1), 'num_images is -1. Give an int at least 1'),
        (dict(fill='none'), r"fill is 'none'. Give one of \('palette'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MorphingVisualHook(**options)


def test_a_model_without_target_tokens_is_refused():
    runner = mock.Mock(model=torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match='Linear has no target_generator'):
        MorphingVisualHook().before_train(runner)
    model = torch.nn.Module()
    model.target_generator = torch.nn.Linear(1, 1)  # as BEiT v2's, with its tokenizer
    with pytest.raises(ValueError, match='Module has no morphing'):
        MorphingVisualHook().before_train(mock.Mock(model=model))
