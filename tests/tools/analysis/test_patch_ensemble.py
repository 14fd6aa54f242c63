"""Table 1's four readings, against loops over single images and scikit-learn."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmdtm.evaluation.labelled_images import find_images, read_image
from mmdtm.evaluation.linear_probe import fit_sgd_probe
from mmdtm.evaluation.patch_zero_shot import ZeroShotCLIP
from mmdtm.morphing import bipartite_matching, merge_schedule
from mmdtm.report import find_runs
from mmdtm.report.paper import paper_tables


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('patch_ensemble')


@pytest.fixture
def run(tool, clip_args, text_args, tmp_path):
    def run_tool(*options):
        out = tmp_path / 'found.json'
        arguments = [*clip_args, *text_args, '--workers', '0', '--out', str(out)]
        tool.main([*map(str, options), '--classes', 'folders', *arguments])
        return json.loads(out.read_text())

    return run_tool


# Images of each class, and seed.
SPLITS = {'val': (12, 8), 'train': (4, 2)}


def draw_world(root, each, seed=0):
    """Patches of noise in a class's colour."""
    noise = np.random.default_rng(seed)
    for label, name in enumerate(['blue sea', 'green_field', 'red fox', 'snow']):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(each):
            tint = 127 + 60 * np.eye(4)[label, :3]
            pixels = (tint + noise.normal(0, 90, (4, 4, 3))).clip(0, 255)
            image = Image.fromarray(pixels.astype(np.uint8))
            image = image.resize((32, 32), Image.Resampling.NEAREST)
            image.save(folder / f'{number}.png')
    return root


def plain_views(clip, path):
    """What table 1 averages: unit-length features, float64, one image at a time."""
    feature, tokens = clip(clip.transform(read_image(path))[None])
    groups = bipartite_matching(tokens, merge_schedule(16, 5, 7)).labels[0].numpy()
    feature, tokens = feature.double().numpy(), tokens[0].double().numpy()
    means = [tokens[groups == group].mean(0) for group in range(5)]
    views = {
        'image': feature,
        'without': tokens,
        ('with', 'patches'): np.stack([means[group] for group in groups]),
        ('with', 'groups'): np.stack(means),
    }
    return {k: v / np.linalg.norm(v, axis=1, keepdims=True) for k, v in views.items()}


@pytest.mark.parametrize('probe', ['lbfgs', 'sgd'])
def test_readings_equal_a_loop_over_single_images(
    run, clip_args, text_args, tmp_path, probe
):
    folders = [draw_world(tmp_path / name, *split) for name, split in SPLITS.items()]
    options = ['--num-morphed', 5, '--batch-size', 3, '--probe', probe]
    found = run(folders[0], '--train', folders[1], *options)
    assert (found['num_tokens'], found['num_morphed'], found['num_iters']) == (16, 5, 7)
    assert (found['images'], found['train_images']) == (48, 16)
    assert (found['probe'], found['fitted_to']) == (probe, 'train')

    clip = ZeroShotCLIP('tiny', clip_args[5], clip_args[3])
    names = sorted(folder.name for folder in folders[0].iterdir())
    texts = [name.replace('_', ' ') for name in names]
    classifier = clip.classifier(texts, text_args[1:]).double().numpy()
    images, train = (
        [(plain_views(clip, path), path.parent.name) for path in find_images(folder)]
        for folder in folders
    )

    def zero_shot(views, scores):
        logits = clip.scale * views @ classifier.T
        if scores == 'probabilities':
            logits = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return names[logits.mean(0).argmax()]

    def probed(view):
        x, y = np.stack([v[view].mean(0) for v, _ in train]), [n for _, n in train]
        queries = np.stack([v[view].mean(0) for v, _ in images])
        if probe == 'sgd':
            labels = torch.tensor([names.index(name) for name in y])
            linear = fit_sgd_probe(torch.from_numpy(x), labels)
            return [names[i] for i in linear(torch.from_numpy(queries)).argmax(1)]
        logistic = LogisticRegression(C=1 / (16 * 1e-3), tol=1e-10, max_iter=10_000)
        return make_pipeline(StandardScaler(), logistic).fit(x, y).predict(queries)

    truth = np.array([name for _, name in images])
    seen = set()
    for row in found['readings']:
        for way in ('image', 'without', 'with'):
            view = (way, row['average']) if way == 'with' else way
            said = [zero_shot(views[view], row['scores']) for views, _ in images]
            expected = dict(
                zero_shot=np.mean(truth == said),
                linear_probe=np.mean(truth == probed(view)),
            )
            if way != 'image':
                patches = ('with', 'patches') if way == 'with' else way
                nearest = [(v[patches] @ classifier.T).argmax(1) for v, _ in images]
                hits = np.array(names)[nearest] == truth[:, None]
                expected['right_patches'] = np.mean(hits)
            expected = {key: 100 * value for key, value in expected.items()}
            assert row[way] == pytest.approx(expected, abs=1e-4)
            seen.add(tuple(said))
        if (row['scores'], row['average']) == ('logits', 'groups'):
            assert found['results'] == {way: row[way] for way in found['results']}
    assert len(found['readings']) == 4
    assert len(seen) == 7, 'every reading should differ from the others'


def test_the_asked_for_reading_is_the_result(run, tmp_path):
    data = draw_world(tmp_path / 'val', 4, seed=3)
    asked = ['--scores', 'probabilities', '--average', 'patches', '--probe', 'none']
    found = run(data, *asked, '--num-morphed', 5)
    (row,) = [
        row
        for row in found['readings']
        if (row['scores'], row['average']) == ('probabilities', 'patches')
    ]
    assert found['results'] == {way: row[way] for way in ('image', 'without', 'with')}


def test_identity_morphing_changes_no_value(run, tmp_path):
    found = run(draw_world(tmp_path / 'val', 3), '--num-morphed', 16)
    assert all(row['without'] == row['with'] for row in found['readings'])
    assert found['fitted_to'] == '5 folds'


def test_bad_images_and_folders_are_counted(run, tmp_path, capsys):
    root = draw_world(tmp_path / 'val', 3)
    train = draw_world(tmp_path / 'train', 3)
    (train / 'lake').mkdir()
    (train / 'snow/0.png').rename(train / 'lake/0.png')
    for bad in (root / 'snow/1.png', train / 'snow/1.png'):
        bad.write_bytes(bad.read_bytes()[:40])
    found = run(root, '--train', train)
    assert (found['images'], found['train_images']) == (11, 10)
    assert len(found['unreadable']) == 2
    assert all('snow/1.png' in message for message in found['unreadable'])
    assert len(found['unknown_folders']) == 1
    assert "'lake'" in found['unknown_folders'][0]
    assert '2 image(s) could not be read' in capsys.readouterr().out


def test_too_few_images_for_a_probe_leave_the_zero_shot_figures(run, tmp_path, capsys):
    found = run(draw_world(tmp_path / 'val', 1))
    assert found['probe'] is None
    assert 'zero_shot' in found['results']['with']
    assert 'at least two images of each class. Give' in capsys.readouterr().out


def test_folds_share_each_class_out(tool):
    labels = torch.tensor([3, 3, 1, 3, 1, 3])
    assert tool.fold_of_each(labels, 2).tolist() == [0, 1, 0, 0, 1, 1]


def test_nothing_to_evaluate_is_an_error(run, tmp_path):
    with pytest.raises(SystemExit, match='nowhere does not exist'):
        run(tmp_path / 'nowhere')


def test_results_are_rows_of_the_report(run, tmp_path):
    found = run(draw_world(tmp_path / 'val', 2), '--probe', 'none')
    assert (found['num_tokens'], found['num_morphed']) == (16, 8)  # half of them
    assert found['probe'] is None and 'linear_probe' not in found['results']['with']
    runs, problems = find_runs([tmp_path])
    assert problems == []
    assert {row.kind for row in runs} == {'patch ensemble'}
    ways = ["CLIP's image feature", 'patches', 'patches, morphed']
    assert [row.name for row in runs] == [f'{tmp_path.name}/found: {w}' for w in ways]
    assert runs[2].metrics == {
        'zero-shot top-1 (%)': found['results']['with']['zero_shot'],
        'right patches (%)': found['results']['with']['right_patches'],
    }


@pytest.mark.parametrize(
    'options, changes, suffix, metric',
    [
        ([], {}, '', 'linear_top1'),
        (['--average', 'patches'], {}, '_logits_patches', 'linear_top1'),
        (['--scores', 'probabilities'], {}, '_probabilities_groups', 'linear_top1'),
        ([], {'num_morphed': 49}, '_49', 'linear_top1'),
        (['--epochs', '50'], {}, '', 'linear top-1 (50 epochs, train)'),
        (['--probe', 'lbfgs'], {}, '', 'linear top-1 (L-BFGS, train)'),
        ([], {'fitted_to': '5 folds'}, '', 'linear top-1 (25 epochs, 5 folds)'),
    ],
)
def test_the_report_compares_the_papers_protocol_alone(
    tool, options, changes, suffix, metric
):
    args = tool.parse_args(['val', '--model', 'ViT-B-16-quickgelu', *options])
    result = dict(zero_shot=1.0, linear_probe=2.0)
    found = dict(pretrained='openai', num_tokens=196, num_morphed=98, fitted_to='train')
    found |= dict(results=dict.fromkeys(tool.WAYS, result)) | changes
    *_, row = tool.report_rows(args, found)
    (paper,) = [row for row in paper_tables()['1'].rows if row.startswith('with m')]
    (name,) = {cell.chain[0] for cell in paper_tables()['1'].rows[paper]}
    assert row['config'] == name + suffix
    assert row['metrics'] == {'zero-shot top-1 (%)': 1.0, metric: 2.0}
