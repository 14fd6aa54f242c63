"""Convert a checkpoint of mmdtm for timm, as safetensors.

A pre-trained backbone, or a fine-tuned one with its classifier. The script
prints the call that builds the model:

    python tools/converters/mmdtm_to_timm.py epoch_300.pth dtm_vit-b.safetensors

In Python, for a pre-trained ViT-B/16:

    timm.create_model('beitv2_base_patch16_224', num_classes=0,
                      global_pool='token', checkpoint_path='dtm_vit-b.safetensors')

A target without .safetensors is a folder that needs no arguments, and that timm's
hub takes, with a config and a model card:

    python tools/converters/mmdtm_to_timm.py epoch_300.pth dtm_vit-b
    timm.create_model('local-dir:dtm_vit-b', pretrained=True)
"""

from pathlib import Path

import mmdtm.plugin  # noqa: F401  (mends what mmdtm's imports need)
from mmdtm.cli.scripts import script, script_parser
from mmdtm.io.converters import to_timm, write_safetensors, write_timm
from mmdtm.io.model_card import model_card
from mmdtm.io.weights import read_weights
from mmdtm.run_record import lineage_of


@script
def main(argv: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument('source', help="mmdtm's checkpoint")
    parser.add_argument('target', help='the .safetensors file, or folder, to write')
    parser.add_argument('--model', help="timm's name of a backbone that is a TimmViT")
    args = parser.parse_args(argv)
    state, arguments = to_timm(read_weights(args.source)[0], args.model)
    if Path(args.target).suffix == '.safetensors':
        write_safetensors(state, args.target)
        call = f'timm.create_model({arguments}, checkpoint_path={args.target!r})'
    else:
        folder = f'local-dir:{args.target}'
        call = f'timm.create_model({folder!r}, pretrained=True)'
        run, classifier = lineage_of(args.source), 'head.weight' in state
        card = model_card('timm', call, run, classifier)
        write_timm(state, arguments, args.target, card)
    print(f'{args.target} is written: {len(state)} tensors. Load it with')
    print(call)


if __name__ == '__main__':
    main()
