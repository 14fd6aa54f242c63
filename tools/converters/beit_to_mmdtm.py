r"""Convert a BEiT v2 style checkpoint into one that mmdtm loads.

BEiT v2's own pre-trained and fine-tuned files, and those of programs built on
its code, the DTM authors' release among them. The result has the names of
mmdtm's own checkpoints:

    python tools/converters/beit_to_mmdtm.py beitv2.pth beitv2_mmdtm.pth
    tools/dist_train.sh configs/finetune/dtm_vit-b_100e_in1k.py 8 \
        --cfg-options model.backbone.init_cfg.checkpoint=beitv2_mmdtm.pth
"""

import mmdtm.plugin  # noqa: F401  (mends what mmdtm's imports need)
from mmdtm.cli.scripts import script, script_parser
from mmdtm.io.converters import from_beit, write_checkpoint
from mmdtm.io.weights import read_weights


@script
def main(argv: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument('source', help='the BEiT v2 style checkpoint')
    parser.add_argument('target', help='the .pth file to write')
    args = parser.parse_args(argv)
    state, left_out = from_beit(read_weights(args.source)[0])
    write_checkpoint(state, args.target)
    print(f'{args.target} is written: {len(state)} tensors.')
    if left_out:
        print(f'Left out: {", ".join(left_out)}.')


if __name__ == '__main__':
    main()
