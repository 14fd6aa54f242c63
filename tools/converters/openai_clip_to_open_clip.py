r"""Convert one of OpenAI's CLIP files into plain weights that mmdtm loads.

OpenAI publishes CLIP as TorchScript archives (ViT-B-16.pt and so on). Such a
file is a program: torch cannot read it as weights only, and ``torch.jit.load``
may run TorchScript from it, with the rights of whoever runs this script. So the
file is loaded only if its SHA-256 is one that OpenAI published, or if you vouch
for it with ``--trust``. This is the one place that does it; what it writes is a
safetensors file, which can hold nothing but tensors:

    python tools/converters/openai_clip_to_open_clip.py ViT-B-16.pt \
        ViT-B-16.safetensors

and then, in a config,

    target_generator=dict(
        type='OpenCLIPGenerator', model='ViT-B-16-quickgelu',
        pretrained='ViT-B-16.safetensors')
"""

from pathlib import Path

import open_clip

import mmdtm.prepare  # noqa: F401  isort: skip
import torch
from safetensors.torch import save_file

from mmdtm.cli.scripts import script, script_parser
from mmdtm.io import atomic_write
from mmdtm.run_record import hash_file

# Everything of open_clip's CLIP; the archive also holds sizes and masks.
PREFIXES = (
    'visual.',
    'transformer.',
    'token_embedding.',
    'positional_embedding',
    'ln_final.',
    'text_projection',
    'logit_scale',
)


def published_models() -> dict[str, str]:
    """OpenAI's models by the SHA-256 of their files, which their URLs contain."""
    return {
        open_clip.get_pretrained_url(name, 'openai').split('/')[-2]: name
        for name in open_clip.list_pretrained_models_by_tag('openai')
        if not name.endswith('-quickgelu')
    }


def convert(source: str | Path, target: str | Path, trust: bool = False) -> str | None:
    """Write a TorchScript CLIP's tensors as safetensors, in their own precision.

    Args:
        source: The archive.
        target: The file to write.
        trust: Load the archive even if it is not one of OpenAI's.

    Returns:
        str, optional: open_clip's name of the model, if it is one of OpenAI's;
        the file then also says that it needs QuickGELU.

    Raises:
        FileNotFoundError: If there is no such file.
        FileExistsError: If ``target`` exists.
        ValueError: If the archive is neither OpenAI's nor trusted, cannot be
            read, or is not a CLIP.
    """
    source, target = Path(source), Path(target)
    if not source.is_file():
        raise FileNotFoundError(
            f"{source.absolute()} does not exist. Name OpenAI's file."
        )
    if target.exists():
        raise FileExistsError(f'{target} exists. Remove it, or name another.')
    digest = hash_file(source)
    model = published_models().get(digest)
    if model is None and not trust:
        raise ValueError(
            f'{source} is none of the files that OpenAI published (SHA-256 {digest}), '
            'or an incomplete download. Loading a TorchScript archive may run code '
            'from it. If you trust its source, add --trust.'
        )
    try:
        state = torch.jit.load(source, map_location='cpu').state_dict()
    except RuntimeError as error:
        raise ValueError(
            f'{source} is not a TorchScript archive ({str(error).splitlines()[0]}). '
            'Plain weights need no conversion.'
        ) from error
    weights = {
        name: value.detach().contiguous().clone()
        for name, value in state.items()
        if name.startswith(PREFIXES)
    }
    if not any(name.startswith('visual.') for name in weights):
        raise ValueError(
            f'{source} is not a CLIP, since none of its tensors is visual.*. Name one '
            "of OpenAI's archives."
        )
    metadata = {'format': 'pt', 'sha256_of_source': digest}
    if model is not None:
        metadata |= {'model': model, 'quick_gelu': 'true'}
    with atomic_write(target) as part:
        save_file(weights, part, metadata=metadata)
    return model


@script
def main(argv: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument('source', help='the TorchScript archive, such as ViT-B-16.pt')
    parser.add_argument('target', help='the .safetensors file to write')
    parser.add_argument(
        '--trust',
        action='store_true',
        help="load an archive that is not OpenAI's; it may run code",
    )
    args = parser.parse_args(argv)
    model = convert(args.source, args.target, args.trust)
    if model is None:
        print(
            f"{args.target} is written. It is not one of OpenAI's, so the file does "
            'not say whether it needs QuickGELU: choose the model name accordingly.'
        )
    else:
        print(f"{args.target} is written: OpenAI's {model}, with QuickGELU.")


if __name__ == '__main__':
    main()
