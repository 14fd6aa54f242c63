"""The README of a folder of weights that is made for a hub."""

import json

LICENCE = (
    'The weights depend on the data and the teacher that they were trained with; see '
    'their licences before you publish them.'
)


def model_card(library: str, load: str, run: dict | None, classifier: bool) -> str:
    """Write a model card of what a checkpoint says of itself.

    Args:
        library: The hub's name of the library, ``'timm'`` or ``'transformers'``.
        load: The Python line that builds the model.
        run: The lineage of :mod:`mmdtm.run_record`, None if the checkpoint has none.
        classifier: Whether the model classifies.

    Returns:
        Markdown with the hub's metadata at its head.
    """
    task = 'image-classification' if classifier else 'image-feature-extraction'
    lines = [
        '---',
        f'library_name: {library}',
        f'pipeline_tag: {task}',
        'tags: [masked-image-modeling, dtm, mmdtm]',
        '---',
        '',
        '# Vision transformer trained with mmdtm',
        '',
        'Method: Morphing Tokens Draw Strong Masked Image Models '
        '([arXiv 2401.00254](https://arxiv.org/abs/2401.00254)).',
        '',
        '```python',
        load,
        '```',
        '',
        '## Training',
        '',
    ]
    steps: list[dict] = []
    while run:
        steps.insert(0, run)
        run = run.get('parent')
    for number, step in enumerate(steps, 1):
        reached = [f'{k} {step[k]}' for k in ('epoch', 'iter') if k in step]
        words = [_code(step.get('config')), *reached[:1]]
        lines.append(f'{number}. {", ".join(words)}')
        if step.get('smoke'):
            lines.append('    - a trial with a small model: its values mean nothing')
        for name, value in sorted((step.get('changes') or {}).items()):
            lines.append(f'    - {_code(name)}: {_code(value)}')
    if not steps:
        lines.append('The checkpoint does not say which run it is from.')
    return '\n'.join([*lines, '', LICENCE, ''])


def _code(value: object) -> str:
    """A value of a checkpoint, as code on one line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return '`' + ' '.join(text.replace('`', "'").split()) + '`'
