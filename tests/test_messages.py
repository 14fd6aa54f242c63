"""What the package and its tools say when something is wrong."""

import ast
import re

import pytest
from tiny_run import ROOT

FILES = sorted(
    path
    for folder in ('mmdtm', 'tools')
    for path in (ROOT / folder).rglob('*.py')
    if '.mim' not in path.parts
)
# Quoted by another message, which says the rest.
REASONS = {
    '_ is not a regular file',
    '_ is not a whole image: _',
    '_ has _ x _ pixels, more than max_pixels=_ of LoadWholeImage',
    '_ takes images of one size alone',
    '_ x _ pixels',
    'a link to a folder that it lies in',
    'getattr(_, _)',
    'it takes images of this size alone',
    'its parts are of other kinds',
    'nested too deeply',
    'not a literal dict',
    'not a regular file',
    'open_clip resizes square position embeddings alone',
    'seconds is _',
    # Python's own words.
    'module _ has no attribute _',
}


def words(node: ast.expr) -> str:
    """A text with _ for what is filled in; empty if it is all that."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return words(node.left) + words(node.right)
    if isinstance(node, ast.JoinedStr):
        return ''.join(words(part) for part in node.values)
    return '_'


def messages(source: str) -> list[str]:
    """Texts of all raised errors, but for those that only pass another's on."""
    found = [
        words(node.exc.args[0])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        if node.exc.args
    ]
    return [text for text in found if re.search('[a-zA-Z]', text)]


def is_two_sentences(text: str) -> bool:
    """What is wrong, and how to mend it; a filled-in text may end the first."""
    return bool(re.search(r'[.?!] (?=\S)|_ (?=[A-Z])', text))


@pytest.mark.parametrize(
    ('source', 'good'),
    [
        ("raise ValueError(f'k is {k}. Give 1 or more.')", True),
        ("raise ValueError('k must be 1 or more, got 0.')", False),
        ("raise ValueError(f'k must be 1 or more, got {k}')", False),
        ("raise ValueError('They differ: ' + why + ' Give both the same.')", True),
    ],
)
def test_sentences_are_counted(source, good):
    (text,) = messages(source)
    assert is_two_sentences(text) == good


def test_errors_say_what_is_wrong_and_how_to_mend_it():
    found = {
        text: str(path.relative_to(ROOT))
        for path in FILES
        for text in messages(path.read_text(encoding='utf-8'))
    }
    assert len(found) > 150
    one = {text: file for text, file in found.items() if not is_two_sentences(text)}
    assert not {text: file for text, file in one.items() if text not in REASONS}
    assert REASONS <= one.keys(), 'a reason that is gone'
