"""torchrun, but for runs that were told to stop: no traceback, and their exit code.

SIGUSR1, Slurm's warning, is passed on to the processes, too.
"""

import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

STOPPED = 75  # mmdtm.engine.hooks.preemption_hook.EXIT_CODE

if __name__ == '__main__':
    # A restart must not find the addresses of the processes that were there before
    # in the store that torchrun (of torch 2.13) otherwise keeps: gloo waits for them.
    os.environ.setdefault('TORCH_DISABLE_SHARE_RDZV_TCP_STORE', '1')
    # torchrun passes SIGTERM on, and dies of SIGUSR1.
    signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        main()
    except SignalException:  # by then, the processes have saved
        sys.exit(STOPPED)
    except ChildFailedError as error:
        if error.get_first_failure()[1].exitcode != STOPPED:
            raise
        sys.exit(STOPPED)
