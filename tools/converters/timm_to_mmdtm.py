r"""Convert weights of timm's ViT, Swin or ConvNeXt into those of mmpretrain's.

For continued pre-training, or fine-tuning, of mmpretrain's backbones. (A MaskedTimmViT
takes timm's weights by itself: pretrained=True.)

    python tools/converters/timm_to_mmdtm.py swin_tiny.safetensors swin-t.pth
    tools/dist_train.sh configs/backbones/dtm_swin-t_300e.py 8 --cfg-options \
        model.backbone.init_cfg.type=Pretrained \
        model.backbone.init_cfg.checkpoint=swin-t.pth \
        model.backbone.init_cfg.prefix=backbone.
"""

import mmdtm.plugin  # noqa: F401  (mends what mmdtm's imports need)
from mmdtm.cli.scripts import script, script_parser
from mmdtm.io.converters import write_checkpoint
from mmdtm.io.timm_names import from_timm
from mmdtm.io.weights import read_weights


@script
def main(argv: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument('source', help="timm's .safetensors or .pth file")
    parser.add_argument('target', help='the .pth file to write')
    args = parser.parse_args(argv)
    state, left_out = from_timm(read_weights(args.source)[0])
    write_checkpoint(state, args.target)
    print(f'{args.target} is written: {len(state)} tensors.')
    if left_out:
        print(f'Left out: {", ".join(left_out)}.')


if __name__ == '__main__':
    main()
