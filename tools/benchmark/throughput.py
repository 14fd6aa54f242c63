"""The earlier name of step.py, which chooses the precision by itself."""

import sys

from step import main

if __name__ == '__main__':
    main([word for word in sys.argv[1:] if word != '--amp'])
