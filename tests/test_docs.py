"""What the pages show is what is in the tree, and works."""

import mmdtm.plugin  # noqa: F401  # isort: skip

import ast
import re
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from pages import PAGES, ROOT, Block, blocks, registered
from tiny import ARCH, dtm_config

from mmdtm.engine.launch import nodes
from mmdtm.hub import find_config
from mmdtm.models.target_generators import OpenCLIPGenerator
from mmdtm.morphing import TokenAssignment, bipartite_matching, dtm_loss
from mmdtm.smoke import shrink_model

PYTHON = blocks(language='python')


def texts(page: str) -> list[str]:
    return [block.text for block in blocks(f'docs/{page}.md', 'python')]


def block_with(text: str) -> str:
    (block,) = [block for block in texts('inherit') if text in block]
    return block


def is_config(block: Block) -> bool:
    """Whether a block sets nothing but what a config consists of."""
    for node in ast.parse(block.text).body:
        if not isinstance(node, ast.Assign):
            return False
        value = node.value
        if isinstance(value, ast.Call) and ast.unparse(value.func) != 'dict':
            return False
        if not isinstance(value, (ast.Call, ast.Constant, ast.List, ast.Name)):
            return False
    return True


CODE = [block for block in PYTHON if not is_config(block)]


def test_blocks_have_a_language_and_notes_a_meaning():
    assert {block.language for block in blocks()} <= {
        'python',
        'bash',
        'text',
        'bibtex',
        'markdown',
    }
    tests = '\n'.join(path.read_text() for path in ROOT.glob('tests/**/test_*.py'))
    for block in blocks():
        kind, _, what = block.note.partition(': ')
        if block.note.startswith('run by '):
            assert f'def {block.note.removeprefix("run by ")}(' in tests, block
        else:
            assert not block.note or (kind == 'not run' and what), block


@pytest.mark.parametrize('page', sorted({block.page for block in CODE}))
def test_code_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    for block in CODE:
        if block.page == page and not block.note:
            exec(compile(block.text, str(block), 'exec'), scope)


def without_docstrings(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            if ast.get_docstring(node) is not None:
                del node.body[0]
    return ast.unparse(tree)


def test_section_4_shows_the_loss_as_it_is():
    shown = ast.unparse(ast.parse(texts('section4')[-1]))
    code = without_docstrings((ROOT / 'mmdtm/models/selfsup/dtm.py').read_text())
    (loss,) = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef) and node.name == 'loss'
    ]
    assert ast.unparse(loss.body) == shown


def test_section_4_names_the_files_of_its_calls():
    rows = re.findall(
        r'^\| (`.*?) \|.*\| `(mmdtm/.*\.py)` \|$', PAGES['docs/section4.md'], re.M
    )
    assert len(rows) == 9
    for calls, file in rows:
        code = (ROOT / file).read_text()
        for call in re.findall(r'`(\w[\w.]*)`', calls):
            *owner, name = call.split('.')
            patterns = [f'class {cls}\\b' for cls in owner] + [f'def {name}\\(']
            for pattern in patterns:
                assert re.search(pattern, code), f'{call} is not in {file}'


def test_the_dpc_knn_example_is_in_the_tree():
    code = without_docstrings((ROOT / 'mmdtm/models/morphings.py').read_text())
    assert without_docstrings(block_with('class DPCKNNMorphing')) in code


def test_the_soft_assignment_works_in_the_loss():
    scope = dict(TokenAssignment=TokenAssignment)
    exec(block_with('class SoftAssignment'), scope)
    soft = scope['SoftAssignment']
    u = torch.randn(2, 12, 5, requires_grad=True)
    v = torch.randn(2, 12, 5)
    hard = bipartite_matching(v, (4, 3))
    alike = soft(hard.matrix(torch.float32))
    assert torch.equal(alike.labels, hard.labels)
    for distance in ('cosine', 'l1'):
        torch.testing.assert_close(
            dtm_loss(u, v, [alike], distance), dtm_loss(u, v, [hard], distance)
        )
    shared = soft(torch.rand(2, 3, 12).softmax(dim=1))
    loss = dtm_loss(u, v, [shared, hard])
    loss.backward()
    assert loss.isfinite() and u.grad.abs().sum() > 0
    expected = 0
    for image in range(2):
        for group in range(3):
            weights = shared.weights[image, group]
            cosine = torch.cosine_similarity(
                weights @ u[image], weights @ v[image], dim=0
            )
            expected += weights.sum() * (1 - cosine)
    torch.testing.assert_close(dtm_loss(u, v, [shared]), expected / 24)


def take_step(model, side: int) -> dict[str, torch.Tensor]:
    """Take one training step; return what was logged. Every parameter must move."""
    grid = side // 16
    sample = DataSample()
    sample.mask = torch.arange(grid**2).view(grid, grid) % 3 == 0
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    model.init_weights()
    before = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
    logged = model.train().train_step(
        dict(inputs=images, data_samples=[sample] * 2),
        OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)),
    )
    assert all(value.isfinite() for value in logged.values())
    stuck = [
        n for n, p in model.named_parameters() if n in before and p.equal(before[n])
    ]
    assert before and not stuck, stuck
    return logged


def load(block: Block, folder: Path) -> Config:
    """Alone if it names its bases, else as a part of the config whose kind it is."""

    def found(base: re.Match) -> str:
        paths = (ROOT / 'configs').glob(f'**/{base[1]}')
        return repr(str(min(paths, key=lambda path: len(path.parts))))

    text = re.sub(r"'\./(\S+\.py)'", found, block.text)
    if '_base_ =' not in text:
        name = 'segmentation/upernet_dtm_vit-b_160k_ade20k-512x512'
        if "_delete_=True, type='mmpretrain.DTMViT'" not in ' '.join(text.split()):
            name = 'dtm_vit-b_300e'
        text = f'_base_ = [{str(find_config(name))!r}]\n' + text
    file = folder / 'shown.py'
    file.write_text(text)
    return Config.fromfile(file, import_custom_modules=False)


@pytest.mark.parametrize('block', [b for b in PYTHON if is_config(b)], ids=str)
def test_config_loads(block, tmp_path):
    cfg = load(block, tmp_path)
    assert cfg.model and cfg.train_cfg and cfg.train_dataloader
    for kind in re.findall(r"\btype='([\w.]+)'", block.text):
        shown = any(f'class {kind}(' in other.text for other in PYTHON)
        assert shown or registered(kind), f'{kind} is not registered'


def test_the_teachers_shown_are_known_and_train_a_student(tmp_path):
    """Small; what is the same when small trains once."""
    known = {*timm.list_models(), *timm.list_pretrained(), *open_clip.list_models()}
    trained = []
    for block in blocks('docs/teachers.md', 'python'):
        names = re.findall(r"model='(.*?)'", block.text)
        assert known.issuperset(names), block
        cfg = load(block, tmp_path)
        for part in [n for n in nodes(cfg.model) if isinstance(n, dict)]:
            if part.get('type') == 'OpenCLIPGenerator':
                tags = open_clip.list_pretrained_tags_by_model(part.model)
                assert part.pretrained in tags, block
        shrink_model(cfg.model)
        if cfg.model not in trained:
            logged = take_step(MODELS.build(cfg.model), 64)
            assert logged['loss'] > 0, block
            trained.append(cfg.model)
    # CLIP, timm's, its grid twice as fine, K-means, two summed and two side by side.
    assert len(trained) == 6


def test_the_patches_of_14_pixels_shown_train():
    (block,) = blocks('docs/teachers.md', 'bash')
    options = dict(re.findall(r'(\S+)=(\d+)', block.text))
    cfg = Config.fromfile(find_config('dtm_vit-b_300e'), import_custom_modules=False)
    cfg.merge_from_dict({name: int(value) for name, value in options.items()})
    cfg.model.backbone.arch = ARCH
    cfg.model.target_generator.update(OpenCLIPGenerator.smoke)
    model = MODELS.build(cfg.model).train()
    (draw,) = [
        TRANSFORMS.build(step)
        for step in cfg.train_dataloader.dataset.pipeline
        if step.type == 'BlockMaskGenerator'
    ]
    sample = DataSample()
    sample.mask = torch.from_numpy(draw({})['mask'])
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    data = model.data_preprocessor(dict(inputs=images, data_samples=[sample]), True)
    assert data['mask'].shape == (1, 16, 16)
    assert model(**data, mode='loss')['loss'].isfinite()
    assert model.target_generator.grid_size == (16, 16)


def test_the_teacher_of_ones_own_trains_a_student(tmp_path):
    exec(block_with('class MMPretrainGenerator'), {})
    vit = MODELS.build(
        dict(type='VisionTransformer', arch=ARCH, img_size=64, out_type='raw')
    )
    path = tmp_path / 'vit.pth'
    torch.save({f'backbone.{k}': v for k, v in vit.state_dict().items()}, path)
    config = dict(type='MMPretrainGenerator', arch=ARCH, img_size=64)
    teacher = MODELS.build(dict(config, checkpoint=str(path)))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = vit(images)[0][:, 1:]
    torch.testing.assert_close(teacher(images), expected)

    model = MODELS.build(
        dtm_config() | dict(target_generator=dict(config, random_weights=True))
    )
    assert list(take_step(model, 64)) == ['loss']


def test_the_backbone_of_ones_own_is_a_student():
    exec(block_with('class ConvStudent'), {})
    config = dtm_config()
    config['backbone'] = dict(type='ConvStudent', embed_dims=24, depth=2, img_size=64)
    model = MODELS.build(config)
    assert list(take_step(model, 64)) == ['loss']
    student, images = model.backbone, torch.randn(1, 3, 64, 64)
    mask = torch.eye(4).bool()[None]
    pixels = mask.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    other = torch.where(pixels, torch.randn(1, 3, 64, 64), images)
    torch.testing.assert_close(student(other, mask), student(images, mask))
    assert not torch.allclose(student(other)[0], student(images)[0])


def test_the_fourth_framework_trains():
    exec(block_with('class MaskFeatDTM'), {})
    scope = {}
    exec(block_with("type='MaskFeatDTM'"), scope)
    config = scope['model']
    config['backbone'].update(arch=ARCH)
    config['neck'].update(in_channels=48)
    config['dtm']['target_generator'].update(OpenCLIPGenerator.smoke)
    logged = take_step(MODELS.build(config), 224)  # HOG has a grid of 14 x 14
    assert set(logged) == {'loss', 'loss_dtm'}


def test_patches_are_classified_as_shown(tmp_path):
    from tiny_clip import save_tiny_clip  # imports open_clip, which the plugin mends

    model_config, weights, _ = save_tiny_clip(tmp_path)
    (block,) = [b for b in CODE if b.page == 'docs/analysis.md']
    text = block.text.replace(
        "ZeroShotCLIP('ViT-B-16', 'openai')",
        f'ZeroShotCLIP("tiny", {weights!r}, {model_config!r})',
    ).replace('num_morphed=98, num_iters=7', 'num_morphed=8, num_iters=3')
    scope = dict(images=torch.randn(2, 3, 32, 32), targets=torch.tensor([0, 1]))
    exec(text, scope)
    assert scope['logits'].shape == (2, 16, 2)
    found, predicted = scope['found'], scope['logits'].argmax(-1)
    assert torch.equal(found.right, predicted == scope['targets'][:, None])
