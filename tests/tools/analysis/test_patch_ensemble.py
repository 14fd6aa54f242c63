"""Table 1, against loops over single images and scikit-learn."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader

from mmdtm.evaluation.labelled_images import LabelledImages, find_images, read_image
from mmdtm.evaluation.patch_zero_shot import ZeroShotCLIP
from mmdtm.morphing import bipartite_matching, merge_schedule
from mmdtm.report import find_runs


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('patch_ensemble')


@pytest.fixture
def run(tool, clip_args, text_args, tmp_path):
    def run_tool(*options):
        out = tmp_path / 'found.json'
        arguments = [*clip_args, *text_args, '--workers', '0', '--out', str(out)]
        code = tool.main([*map(str, options), '--classes', 'folders', *arguments])
        return code, json.loads(out.read_text()) if out.exists() else None

    return run_tool


def draw_world(root, each, seed=0):
    """Classes that differ in colour."""
    noise = np.random.default_rng(seed)
    for label, name in enumerate(['blue sea', 'green_field', 'red fox', 'snow']):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(each):
            base = np.zeros(3) if label < 3 else np.full(3, 200)
            base[2 - label if label < 3 else 0] = 200
            pixels = (base + noise.normal(0, 60, (6, 6, 3))).clip(0, 255)
            image = Image.fromarray(pixels.astype(np.uint8)).resize((48, 48))
            image.save(folder / f'{number}.png')
    return root


def test_results_equal_a_loop_over_single_images(
    tool, run, clip_args, text_args, tmp_path
):
    evaluated = draw_world(tmp_path / 'val', 4, seed=1)
    train = draw_world(tmp_path / 'train', 4, seed=2)
    code, found = run(
        evaluated, '--train', train, '--num-morphed', 5, '--batch-size', 3
    )
    assert code == 0
    assert (found['num_tokens'], found['num_morphed'], found['num_iters']) == (16, 5, 7)
    assert (found['images'], found['train_images']) == (16, 16)
    assert found['probe'] == 'train'

    clip = ZeroShotCLIP('tiny', clip_args[5], clip_args[3])
    names = sorted(folder.name for folder in evaluated.iterdir())
    texts = [name.replace('_', ' ') for name in names]
    classifier = clip.classifier(texts, text_args[1:])

    def measure(root):
        zero_shot, right, features, labels = [], [], [], []
        for path in find_images(root):
            label = names.index(path.parent.name)
            labels.append(label)
            feature, tokens = clip(clip.transform(read_image(path))[None])
            groups = bipartite_matching(tokens, merge_schedule(16, 5, 7)).labels[0]
            morphed = torch.stack([tokens[0, groups == g].mean(0) for g in groups])
            row = [int((feature @ classifier.T).argmax())]
            hits, means = [], [feature[0]]
            for patches in (tokens[0], morphed):
                unit = F.normalize(patches, dim=-1)
                logits = clip.clip.logit_scale.exp() * unit @ classifier.T
                row.append(int(logits.softmax(-1).mean(0).argmax()))
                hits.append(float((logits.argmax(-1) == label).float().mean()))
                means.append(unit.mean(0))
            zero_shot.append(row)
            right.append(hits)
            features.append(torch.stack(means))
        arrays = np.array(zero_shot), np.array(right), torch.stack(features).numpy()
        return *arrays, np.array(labels)

    zero_shot, right, features, labels = measure(evaluated)
    _, _, train_features, train_labels = measure(train)
    items = [(path, names.index(path.parent.name)) for path in find_images(evaluated)]
    loader = DataLoader(
        LabelledImages(items, clip.transform), 3, collate_fn=LabelledImages.collate
    )
    collected = tool.collect(clip, loader, classifier, 5, 7, '', Console(quiet=True))
    for column, way in enumerate(['image', 'without', 'with']):
        torch.testing.assert_close(
            collected.features[way], torch.from_numpy(features[:, column])
        )
    for column, way in enumerate(['image', 'without', 'with']):
        result = found['results'][way]
        expected = 100 * (zero_shot[:, column] == labels).mean()
        assert result['zero_shot'] == pytest.approx(expected)
        if way != 'image':
            expected = 100 * right[:, column - 1].mean()
            assert result['right_patches'] == pytest.approx(expected, abs=1e-4)
        probe = make_pipeline(
            StandardScaler(), LogisticRegression(C=1 / (16 * 1e-3), max_iter=1000)
        )
        probe.fit(train_features[:, column], train_labels)
        expected = 100 * probe.score(features[:, column], labels)
        assert result['linear_probe'] == pytest.approx(expected)
    assert found['results']['without'] != found['results']['with']


def test_identity_morphing_changes_no_figure(run, tmp_path):
    code, found = run(draw_world(tmp_path / 'val', 3), '--num-morphed', 16)
    assert code == 0
    assert found['results']['without'] == found['results']['with']
    assert found['probe'] == '5 folds'


def test_half_of_the_tokens_remain_by_default(run, tmp_path):
    _, found = run(draw_world(tmp_path / 'val', 2), '--no-probe')
    assert (found['num_tokens'], found['num_morphed']) == (16, 8)
    assert found['probe'] is None
    assert 'linear_probe' not in found['results']['with']


def test_bad_images_and_folders_are_counted(run, tmp_path, capsys):
    root = draw_world(tmp_path / 'val', 3)
    train = draw_world(tmp_path / 'train', 3)
    (train / 'lake').mkdir()
    (train / 'snow/0.png').rename(train / 'lake/0.png')
    for bad in (root / 'snow/1.png', train / 'snow/1.png'):
        bad.write_bytes(bad.read_bytes()[:40])
    code, found = run(root, '--train', train)
    assert code == 0
    assert (found['images'], found['train_images']) == (11, 10)
    assert len(found['unreadable']) == 2
    assert all('snow/1.png' in message for message in found['unreadable'])
    assert len(found['unknown_folders']) == 1
    assert "'lake'" in found['unknown_folders'][0]
    assert '2 image(s) could not be read' in capsys.readouterr().out


def test_too_few_images_for_a_probe_leave_the_zero_shot_figures(run, tmp_path, capsys):
    code, found = run(draw_world(tmp_path / 'val', 1))
    assert code == 0
    assert found['probe'] is None
    assert 'zero_shot' in found['results']['with']
    assert 'at least two images of each class' in capsys.readouterr().out


def test_folds_share_each_class_out(tool):
    labels = torch.tensor([3, 3, 1, 3, 1, 3])
    assert tool.fold_of_each(labels, 2).tolist() == [0, 1, 0, 0, 1, 1]


def test_nothing_to_evaluate_is_an_error(run, tmp_path, capsys):
    assert run(tmp_path / 'nowhere')[0] == 1
    assert 'nowhere: no such image or folder' in capsys.readouterr().err


def test_results_are_rows_of_the_report(run, tmp_path):
    code, found = run(draw_world(tmp_path / 'val', 2), '--no-probe')
    assert code == 0
    runs, problems = find_runs([tmp_path])
    assert problems == []
    assert {row.kind for row in runs} == {'patch ensemble'}
    ways = ["CLIP's image feature", 'patches', 'patches, morphed']
    assert [row.name for row in runs] == [f'{tmp_path.name}/found: {w}' for w in ways]
    assert runs[2].metrics == {
        'zero-shot top-1 (%)': found['results']['with']['zero_shot'],
        'right patches (%)': found['results']['with']['right_patches'],
    }
