"""A process that has everything imported and forks a child per run, so that killing one is cheap; not a test.

Line: JSON [configuration, folder]. Answer: the child's process id, then, when it has ended, its exit status.
"""

import json
import os
import sys
from pathlib import Path

import torch
import trl.trainer.sft_trainer  # noqa: F401 - imported once for all children

from inscl.config import parse_config
from inscl.runs.run import run
from support import WordEncoder, WordTagger


def main() -> None:
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        config, out = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(parse_config(config), Path(out), encoder=WordEncoder(), tagger=WordTagger())
                code = 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
