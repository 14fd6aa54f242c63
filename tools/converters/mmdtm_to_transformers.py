"""Convert a checkpoint of mmdtm for Hugging Face transformers.

A pre-trained backbone, or a fine-tuned one with its classifier. The result is
a folder with config.json, preprocessor_config.json, model.safetensors and a model
card, as the hub takes it:

    python tools/converters/mmdtm_to_transformers.py epoch_300.pth dtm_vit-b

In Python:

    BeitModel.from_pretrained('dtm_vit-b')
"""

import mmdtm.plugin  # noqa: F401  (mends what mmdtm's imports need)
from mmdtm.cli.scripts import script, script_parser
from mmdtm.io.converters import to_transformers, write_transformers
from mmdtm.io.model_card import model_card
from mmdtm.io.weights import read_weights
from mmdtm.run_record import lineage_of


@script
def main(argv: list[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument('source', help="mmdtm's checkpoint")
    parser.add_argument('target', help='the folder to write')
    args = parser.parse_args(argv)
    state, config = to_transformers(read_weights(args.source)[0])
    (architecture,) = config['architectures']
    call = f'transformers.{architecture}.from_pretrained({args.target!r})'
    run, classifier = lineage_of(args.source), 'id2label' in config
    card = model_card('transformers', call, run, classifier)
    write_transformers(state, config, args.target, card)
    print(f'{args.target} is written: {len(state)} tensors. Load it with')
    print(call)


if __name__ == '__main__':
    main()
