"""``python -m mmdtm`` is the command ``mmdtm``."""

from mmdtm.cli import main

if __name__ == '__main__':
    main()
