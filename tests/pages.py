"""README, CONTRIBUTING and docs/*.md, taken apart into blocks and commands."""

import re
from dataclasses import dataclass
from pathlib import Path

from mmengine.registry import Registry
from mmpretrain import registry as of_mmpretrain
from mmseg import registry as of_mmseg

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *ROOT.glob('docs/**/*.md')]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(FILES)}
BLOCK = re.compile(
    r'(?:^<!-- (?P<note>[^>]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$',
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced block: page, number there, language, text, comment before it.

    The comment says what is done instead of running it: ``not run: REASON``, or
    ``run by NAME``, a test.
    """

    page: str
    number: int
    language: str
    text: str
    note: str

    def __str__(self) -> str:
        return f'{self.page}:{self.number}'


def blocks(page: str | None = None, language: str | None = None) -> list[Block]:
    """The blocks of a page, or of all, in a language, or in any."""
    found = [
        Block(name, number, match['language'], match['text'], match['note'] or '')
        for name, text in PAGES.items()
        if page in (None, name)
        for number, match in enumerate(BLOCK.finditer(text))
    ]
    return [block for block in found if language in (None, block.language)]


def prose(page: str) -> str:
    """A page without its blocks."""
    return BLOCK.sub('', PAGES[page])


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line of shell, and of what the text quotes of them."""
    found = []
    for block in blocks(language='bash'):
        text = re.sub(r'\\\n\s*', '', re.sub(r'\s#.*$', '', block.text, flags=re.M))
        found += [(block.page, line.strip()) for line in text.splitlines() if line]
    for page in PAGES:
        quoted = re.findall(r'`([^`]+)`', prose(page))
        found += [
            (page, ' '.join(text.split()))
            for text in quoted
            if re.match(
                r'(python |make |mmdtm |pip install |tools/\S+ |\S+=\S+ tools/)', text
            )
        ]
    return sorted(set(found))


def registered(kind: str) -> list[type]:
    """What mmpretrain's and mmsegmentation's registries have by this name."""
    found = [
        registry.get(kind)
        for module in (of_mmpretrain, of_mmseg)
        for registry in vars(module).values()
        if isinstance(registry, Registry)
    ]
    return [value for value in found if value is not None]
