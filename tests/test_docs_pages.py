"""What the pages say of versions, data, loggers and one another is so."""

import functools
import os
import re
import subprocess
import sys
import threading
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import pytest
import yaml
from mmengine.logging import MMLogger
from mmengine.registry import VISUALIZERS, init_default_scope
from packaging.requirements import Requirement
from pages import PAGES, ROOT, blocks, commands

import mmdtm.plugin  # noqa: F401
from mmdtm import morphing
from mmdtm.cli.train import parse_args
from mmdtm.engine.launch import load_config
from mmdtm.hub import config_names, get_config


def requirements(file: str) -> list[Requirement]:
    lines = (ROOT / 'requirements' / f'{file}.txt').read_text().splitlines()
    lines = [line.partition('#')[0].strip() for line in lines]
    return [Requirement(line) for line in lines if line and not line.startswith('-')]


def plain(requirement: Requirement) -> str:
    return requirement.name.lower().replace('_', '-')


def test_versions_are_those_that_are_pinned_and_allowed():
    text = (ROOT / 'pyproject.toml').read_text()
    lists = re.findall(
        r'^(dependencies|onedl|openmmlab) = \[\n(.*?)^\]', text, re.M | re.S
    )
    assert len(lists) == 3
    allowed = {
        plain(requirement): requirement.specifier
        for _, entries in lists
        for requirement in map(Requirement, re.findall(r"^    '(.*?)'", entries, re.M))
    }
    pins: dict[str, list[str]] = {}
    for file in ('runtime', 'onedl', 'openmmlab'):
        for requirement in requirements(file):
            old = ' (Python 3.10)' if '<' in str(requirement.marker or '') else ''
            version = str(requirement.specifier).removeprefix('==') + old
            pins.setdefault(plain(requirement), []).append(version)
    rows = [
        f'| {name} | {", ".join(versions)} | {allowed.get(name, "any")} |'
        for name, versions in pins.items()
    ]
    assert (
        '\n| package | pinned | allowed |\n|---|---|---|\n' + '\n'.join(rows) + '\n\n'
        in PAGES['docs/versions.md']
    )


def test_versions_are_those_of_the_workflow():
    text = (ROOT / '.github/workflows/ci.yml').read_text()
    jobs = yaml.safe_load(text)['jobs']
    (torch,) = (r for r in requirements('runtime') if r.name == 'torch')
    setup = next(s for s in jobs['pinned']['steps'] if 'setup-python' in str(s))
    python, version = setup['with']['python-version'], str(torch.specifier)[2:]
    matrix = jobs['ranges']['strategy']['matrix']
    stacks = ', '.join(matrix['stack'])
    expected = [
        f'| the pins below | {python} | {version} | {stacks} | `requirements/*.txt` |'
    ]
    for name, end in zip(('oldest', 'newest'), matrix['ends'], strict=True):
        version = end['torch'].split()[0].partition('==')[2] or 'newest'
        expected.append(
            f'| the {name} | {end["python"]} | {version} | {stacks} '
            '| `pyproject.toml` |'
        )
    for row in expected:
        assert row in PAGES['docs/versions.md'].splitlines()


def files_of(node: object) -> set[tuple[str, str]]:
    """(data_root, annotation file) of all data sets in a config."""
    found = set()
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, dict | list | tuple):
            found |= files_of(value)
    if isinstance(node, dict) and 'data_root' in node:
        found.add((node['data_root'], node.get('ann_file', '')))
    return found


@pytest.mark.parametrize(
    'name',
    [name for name in config_names() if name.startswith(('transfer/', 'segmentation/'))]
    + ['dtm_vit-b_300e', 'finetune/dtm_vit-b_100e_in1k'],
)
def test_data_lie_where_the_configs_look(name):
    layouts = '\n'.join(block.text for block in blocks('docs/data.md', 'text'))
    trees = re.split(r'^(?=data/)', layouts, flags=re.M)
    cfg = get_config(name)
    loaders = [cfg.get(f'{split}_dataloader') for split in ('train', 'val')]
    found = files_of([loader for loader in loaders if loader])
    assert found
    for root, annotations in found:
        (tree,) = (tree for tree in trees if tree.startswith(f'{root}\n'))
        assert annotations in tree


LOGGERS = [
    re.sub(r'^python tools/train.py ', '', command)
    for _, command in commands()
    if 'VisBackend' in command and command.startswith('python tools/train.py')
]


def test_there_is_a_line_for_each_logger():
    assert len(LOGGERS) == 2


@pytest.mark.parametrize('command', LOGGERS)
@pytest.mark.parametrize('installed', [True, False])
def test_the_logger_gets_the_values(command, installed, tmp_path, monkeypatch):
    kind = re.search(r'type=(\w+?)VisBackend', command)[1].lower()
    package = mock.MagicMock(**{'get_experiment_by_name.return_value': None})
    monkeypatch.setitem(sys.modules, kind, package if installed else None)
    cfg = load_config(parse_args([*command.split(), '--work-dir', str(tmp_path)]))
    init_default_scope(cfg.default_scope)
    config = dict(cfg.visualizer, name=str(tmp_path), save_dir=str(tmp_path))
    MMLogger.get_instance(str(tmp_path))  # MLflow's backend takes the newest
    visualizer = VISUALIZERS.build(config)
    if not installed:
        with pytest.raises(ImportError, match=f'pip install {kind}'):
            visualizer.add_config(cfg)
        return
    visualizer.add_config(cfg)
    visualizer.add_scalars({'loss': 0.25}, step=3)
    assert "'loss': 0.25" in str(package.mock_calls)
    if kind == 'wandb':
        assert package.init.call_args.kwargs['project'] == 'dtm'
    else:
        package.set_tracking_uri.assert_called_once_with('sqlite:///mlflow.db')
    assert (tmp_path / 'vis_data/scalars.json').read_text().count('0.25') == 1


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r'\]\(([^)#\s]+)(?:#([\w-]+))?\)', PAGES['README.md'])
    links = [(path, anchor) for path, anchor in links if '://' not in path]
    assert len(links) > 15
    for path, anchor in links:
        assert (ROOT / path).exists(), path
        if anchor:
            titles = re.findall(r'^#+ (.*)', PAGES[path], re.M)
            assert anchor in {
                re.sub(r'[^\w -]', '', title).lower().replace(' ', '-')
                for title in titles
            }


def test_every_page_is_in_the_site():
    site = (ROOT / 'mkdocs.yml').read_text()
    shown = re.findall(r'^ +- .*?([\w/-]+\.md)$', site, re.M)
    assert {f'docs/{page}' for page in shown} == {p for p in PAGES if p[:5] == 'docs/'}


LINK = '<a href="https://example.org/mmdtm">Source code</a>'


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Address of the site, built strictly and served."""
    folder = tmp_path_factory.mktemp('site')
    built = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-d', str(folder)],
        cwd=ROOT,
        env=os.environ | dict(REPOSITORY_LINK=LINK),
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


@pytest.mark.slow
def test_the_site_links_to_its_repository(site):
    assert LINK in fetch(site)


@pytest.mark.slow
def test_the_site_shows_the_api(site):
    page = fetch(f'{site}api/morphing/')
    for name in morphing.__all__:
        assert re.search(rf'id="mmdtm\.morphing\.(\w+\.)?{name}"', page), name
    for path in ROOT.glob('docs/api/*.md'):
        page = fetch(f'{site}api/{path.stem.replace("index", "")}/')
        assert ':class:' not in page and ':func:' not in page


@pytest.mark.slow
def test_the_site_fits_wide_and_narrow_light_and_dark(site, browser):
    backgrounds = set()
    for page in ('', 'faq/', 'tables/', 'api/models/'):
        for scheme in ('light', 'dark'):
            for width in (1400, 390):
                browser.emulate(scheme, width)
                browser.send('/url', url=site + page)
                across = browser.run('return document.documentElement.scrollWidth')
                assert across <= width, page
                script = 'return getComputedStyle(document.body).backgroundColor'
                backgrounds.add((scheme, browser.run(script)))
    assert len(backgrounds) == 2 and len({colour for _, colour in backgrounds}) == 2
    requests = [url for url in browser.requests() if url.startswith('http')]
    assert requests and all(url.startswith(site) for url in requests)
    assert browser.log('browser') == []  # no error
