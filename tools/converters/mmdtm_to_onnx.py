"""Convert a checkpoint of mmdtm to ONNX.

A pre-trained backbone, which gives its tokens, or a fine-tuned one with its classifier,
which gives the logits. Any number of images; another size than the training's with
--img-size. onnxruntime's output is compared with torch's before the script ends.

    python tools/converters/mmdtm_to_onnx.py epoch_300.pth dtm_vit-b.onnx
"""

import mmdtm.plugin  # noqa: F401  (mends what mmdtm's imports need)
from mmdtm.cli.scripts import script, script_parser
from mmdtm.io.weights import read_weights
from mmdtm.models.onnx import write_onnx


@script
def main(argv: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument('source', help="mmdtm's checkpoint")
    parser.add_argument('target', help='the .onnx file to write')
    parser.add_argument('--img-size', type=int, help="side in pixels; the training's")
    args = parser.parse_args(argv)
    about = write_onnx(read_weights(args.source)[0], args.target, args.img_size)
    side = about['img_size']
    print(f'{args.target} is written: {about["output"]} of (B, 3, {side}, {side}).')
    difference = about['difference']
    print(f'onnxruntime differs from torch by {difference:.1e} of the largest value.')


if __name__ == '__main__':
    main()
