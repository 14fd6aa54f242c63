"""Tests a checkpoint: tools/test.py CONFIG CHECKPOINT, mmpretrain's and mmseg's."""

from mmdtm.cli.test import main

if __name__ == '__main__':
    main()
