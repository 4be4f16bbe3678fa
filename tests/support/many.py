"""Many command lines in an instance, fast: each in a fork of a process that has imported everything already."""

import json
import math
import sys
from collections.abc import Sequence

from support.cli import Result
from support.instance import COMMAND_SECONDS, Instance

Command = tuple[str, Sequence[str], dict[str, str]]  # binfmtd or binfmt, its arguments, more variables

_DRIVER = """
import io, json, os, select, signal, sys, tempfile, traceback
from binfmtd.cli import main as plain
from binfmtd.cli.compat import main as compat
import binfmtd.cli.commands.apply, binfmtd.cli.commands.import_, binfmtd.cli.commands.export
import binfmtd.config.build, binfmtd.host.probe
results = []
for which, words, variables in json.load(sys.stdin):
    files = [tempfile.TemporaryFile(), tempfile.TemporaryFile()]
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for place, file in enumerate(files, 1):
                os.dup2(file.fileno(), place)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ.update(variables)
            status = {"binfmtd": plain, "binfmt": compat}[which].main(words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    ended = os.pidfd_open(pid)
    if not select.select([ended], [], [], int(sys.argv[1]))[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(ended)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for file in files:
        file.seek(0)
    results.append([status, *(file.read().decode("utf-8", "surrogateescape") for file in files)])
sys.stdout.write(json.dumps(results))
"""


def run_all(instance: Instance, commands: Sequence[Command]) -> list[Result]:
    """Run them one after the other; a command that takes longer than COMMAND_SECONDS is killed."""
    seconds = math.ceil(COMMAND_SECONDS)
    driver = [sys.executable, "-X", "utf8", "-c", _DRIVER, str(seconds)]
    done = instance.run(driver, input=json.dumps(commands), timeout=seconds * (len(commands) + 1))
    assert done.returncode == 0, done.stderr
    return [Result(*result) for result in json.loads(done.stdout)]
