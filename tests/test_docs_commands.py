"""What the pages show as commands: tools, options, files and keys that exist."""

import argparse
import contextlib
import importlib
import inspect
import re
import runpy
import shlex
import sys

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pages import PAGES, ROOT, blocks, commands, prose, registered

import mmdtm.plugin  # noqa: F401
from mmdtm import cli
from mmdtm.cli import COMMANDS
from mmdtm.cli.pretrain import size_recipe
from mmdtm.hub import find_config, get_config
from mmdtm.models.selfsup import DTMBranch

# Of the shell and of the system.
SHELL = {'mkdir', 'tar', 'for', 'done', 'pre-commit', 'docker', 'nc', 'mim'}
# What a dictionary without a type is given to.
UNTYPED = {'dtm': [DTMBranch]}
# What a reader replaces, where a tool does not take any word.
EXAMPLES = {'TABLE': '8'}
CONFIG = re.compile(r'(configs|examples)/\S+\.py')
# The tool behind a script, and which of the script's words it gets.
SCRIPTS = {
    'dist_train.sh': ('train.py', lambda w: [w[0], *w[2:]]),
    'dist_test.sh': ('test.py', lambda w: [w[0], w[1], *w[3:]]),
    'slurm_train.sh': ('train.py', lambda w: [w[2], '--work-dir', w[3], *w[4:]]),
    'slurm_test.sh': ('test.py', lambda w: [w[2], w[3], *w[4:]]),
}


class Parsed(BaseException):
    """Carries the arguments out of a tool."""


@pytest.fixture
def parse(monkeypatch):
    """A function from a tool's words to its arguments; the tool goes no further."""
    whole = argparse.ArgumentParser.parse_args

    def stop(self, *args, **kwargs):
        raise Parsed(whole(self, *args, **kwargs))

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)

    def run(call, words):
        monkeypatch.setattr(sys, 'argv', list(words))
        with pytest.raises(Parsed) as caught:
            call()
        return caught.value.args[0]

    return run


def split(command: str) -> tuple[list[str], list[str]]:
    """Variables before a command, and its words, braces expanded."""
    words = []
    command = re.sub(r'\w+', lambda match: EXAMPLES.get(match[0], match[0]), command)
    for word in shlex.split(command):
        match = re.fullmatch(r'(.*)\{(.+,.+)\}(.*)', word)
        words += (
            [match[1] + part + match[3] for part in match[2].split(',')]
            if match
            else [word]
        )
    variables = []
    while words and re.match(r'[A-Z_]+=', words[0]):
        variables.append(words.pop(0).partition('=')[0])
    return variables, words


def parse_command(parse, words: list[str]) -> argparse.Namespace | None:
    """Arguments of one of our tools, or None for what is not ours."""
    if words[0] == 'mmdtm':
        assert words[1] in COMMANDS
        module = importlib.import_module(f'mmdtm.cli.{words[1].replace("-", "_")}')
        rest = words[2:]
        if '--gpus' in rest:  # becomes dist_*.sh
            del rest[rest.index('--gpus') : rest.index('--gpus') + 2]
        return parse(lambda: module.main(rest), words)
    if re.fullmatch(r'(.*/)?python', words[0]):
        words = words[1:]
    if words[0] == 'torchrun':
        words = words[words.index('tools/train.py') :]
    script = ROOT / words[0]
    if script.suffix not in ('.py', '.sh'):
        return None
    assert script.is_file(), f'there is no {words[0]}'
    rest = words[1:]
    if script.suffix == '.sh':
        tool, order = SCRIPTS[script.name]
        rest, script = order(rest), script.with_name(tool)
    # As Python does for a script: its folder comes first.
    sys.path.insert(0, str(script.parent))
    try:
        return parse(
            lambda: runpy.run_path(str(script), run_name='__main__'),
            [str(script), *rest],
        )
    finally:
        sys.path.remove(str(script.parent))


def accepts(kind: type, name: str) -> bool:
    """Whether a class, or one that it inherits from, takes an option."""
    return any(
        name in inspect.signature(cls.__init__).parameters
        for cls in getattr(kind, '__mro__', ())
        if cls is not object
    )


def has_key(cfg: Config, key: str, merged: Config | None = None) -> bool:
    """Whether a config has a key, or an object there takes such an option.

    Args:
        cfg: The config.
        key: Names between dots.
        merged: The config with all options, where one of them may name a type.
    """
    node, new, kinds = cfg, merged or cfg, []
    for part in key.split('.'):
        there = int(part) if part.isdigit() else part
        try:
            node = node[there]
        except (KeyError, IndexError):
            kinds = registered(new['type']) if 'type' in new else kinds
            return any(accepts(kind, part) for kind in kinds)
        new, kinds = new[there], UNTYPED.get(part, [])
    return True


@pytest.mark.parametrize(
    'page,command', commands(), ids=[f'{p}: {c[:60]}' for p, c in commands()]
)
def test_command(page, command, parse):
    variables, words = split(command)
    launchers = ''.join(path.read_text() for path in (ROOT / 'tools').glob('*.sh'))
    for variable in variables:
        assert re.search(rf'\b{variable}\b', launchers), f'nothing reads {variable}'
    if words[0] == 'make':
        targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M)
        named = [word for word in words[1:] if '=' not in word]
        assert set(named) <= set(targets)
        for word in set(words[1:]) - set(named):
            name = word.partition('=')[0]
            assert f'$({name})' in (ROOT / 'Makefile').read_text()
    elif words[0] == 'pip':
        project = (ROOT / 'pyproject.toml').read_text()
        extras = re.findall(r'(?:^|\s)(?:\.|mmdtm)\[(\w+)\]', ' '.join(words))
        for extra in extras:
            assert re.search(rf'^{extra} = \[', project, re.M)
    elif words[0] not in SHELL:
        args = parse_command(parse, words)
        assert args is not None, f'{words[0]} is not known here'
        for word in words:
            if CONFIG.fullmatch(word):
                assert find_config(ROOT / word)
        source = str(getattr(args, 'config', ''))
        if CONFIG.fullmatch(source) and hasattr(args, 'cfg_options'):
            cfg = get_config(ROOT / source)
            init_default_scope(cfg.default_scope)
            merged, options = get_config(ROOT / source), args.cfg_options or {}
            if isinstance(options, dict):  # some tools keep the text
                merged.merge_from_dict(options)
            for option in options:
                key = option.partition('=')[0]
                assert has_key(cfg, key, merged), f'{source} has no {key}'


def test_options_that_the_pages_quote_exist():
    names = (
        'dtm_vit-b_300e finetune/dtm_vit-b_100e_in1k '
        'segmentation/upernet_dtm_vit-b_160k_ade20k-512x512 '
        'applicability/mae-dtm_vit-b_100e'
    ).split()
    cfgs = [get_config(name) for name in names]
    quoted = {
        (page, key)
        for page in PAGES
        for text in re.findall(r'`([^`]+)`', prose(page))
        for key in re.findall(r'(?:^|\s)((?:[a-z_]+\.)+[\w.]+)=', text)
    }
    assert len(quoted) > 20
    init_default_scope('mmpretrain')
    unknown = [
        (page, key)
        for page, key in quoted
        if not any(has_key(cfg, key) for cfg in cfgs)
    ]
    assert not unknown


SHOWN = [
    (block.page, *shown.split('\n', 1))
    for block in blocks(language='text')
    if block.note == 'run by test_commands_print_what_the_page_shows'
    for shown in re.split(r'^\$ ', block.text, flags=re.M)[1:]
]


@pytest.mark.parametrize(('page', 'command', 'output'), SHOWN)
def test_commands_print_what_the_page_shows(page, command, output, capsys):
    with contextlib.suppress(SystemExit):
        cli.main(shlex.split(command)[1:])
    found, expected = capsys.readouterr().out.splitlines(), output.splitlines()
    assert found and sorted(found) == sorted(expected), page


def test_the_page_of_the_command_has_all_of_it():
    page = PAGES['docs/commands.md']
    for name in COMMANDS:
        assert re.search(rf'^## .*\b{name}\b', page, re.M), name
    rows = re.findall(
        r'^\| ([\d,]+).*? \| (?:(\d) x )?(\d+) \| (.*) \| (.*) \|$', page, re.M
    )
    assert len(rows) == 6
    for images, gpus, batch, epochs, steps in rows:
        number, *expected = (
            int(v.replace(',', '')) for v in (images, batch, epochs, steps)
        )
        sizes = size_recipe(number, int(gpus or 1))
        found = [sizes['batch'], sizes['epochs'], sizes['epochs'] * sizes['steps']]
        assert found == expected
