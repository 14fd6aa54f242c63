"""Shows docstrings' Sphinx roles and literal blocks as Markdown, for the site (griffe).

``:class:`~mmdtm.morphing.Draw``` becomes a link to that name where the API pages have
it, and is code elsewhere; ``::`` before an indented block becomes ``:``.
"""

import re

import griffe

ROLE = re.compile(r':(?:class|func|meth|mod|attr|data|exc):`(~?)([\w.]+)`')
LITERAL = re.compile(r'::$', re.M)


class Roles(griffe.Extension):
    """Rewrites each docstring once it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """Called by griffe for each object."""
        if not obj.docstring:
            return

        def link(match: re.Match) -> str:
            short, name = match.groups()
            if '.' not in name and (found := self.resolve(obj, name)):
                name, shown = found, name
            else:
                shown = name.rpartition('.')[2] if short else name
            code = f'<code>{shown}</code>'
            return f'<autoref identifier="{name}" optional>{code}</autoref>'

        text = ROLE.sub(link, obj.docstring.value)
        obj.docstring.value = LITERAL.sub(':', text)

    @staticmethod
    def resolve(obj: griffe.Object, name: str) -> str | None:
        """The full name of what ``name`` is in the module of ``obj``."""
        try:
            return obj.resolve(name)
        except griffe.NameResolutionError:
            return None
