"""Trains a model: tools/train.py CONFIG, or tools/dist_train.sh CONFIG GPUS."""

from mmdtm.cli.train import main

if __name__ == '__main__':
    main()
