"""atheris against every parser of text from outside: one process for each target, for so many seconds each.

``run.py SECONDS [TARGET...]``; the exit status is 1 if any of them failed, and its input is kept as ``crash-*``.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).parents[1]
LONGEST_INPUT = 8192
SLOW_SECONDS = 20  # for one input


def fuzz(name: str, seconds: int) -> bool:
    """Run one target in its own process, print its number of executions, and return True if it succeeded."""
    with TemporaryDirectory(prefix="binfmtd-fuzz-") as corpus:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, str(seconds), corpus], capture_output=True, text=True, check=False
        )
    runs = re.search(r"Done (\d+) runs", done.stderr)
    print(f"{name:<12} {runs[1] if runs else 'failed':>10} executions", flush=True)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
    return done.returncode == 0


def one(name: str, seconds: str, corpus: str) -> None:
    """Fuzz one target: the process that ``fuzz`` starts."""
    import atheris

    sys.path.insert(0, str(TESTS))
    with atheris.instrument_imports(include=["binfmtd", "tomllib", "json"]):
        from support.any_input import SEEDS, TARGETS
    for number, seed in enumerate(SEEDS[name]):
        (Path(corpus) / str(number)).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        f"-timeout={SLOW_SECONDS}",
        "-rss_limit_mb=2048",
    ]
    atheris.Setup([name, corpus, *options], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Fuzz the targets, two at a time."""
    sys.path.insert(0, str(TESTS))
    from support.any_input import TARGETS

    seconds, names = int(sys.argv[1]), sys.argv[2:] or list(TARGETS)
    with ThreadPoolExecutor(2) as pool:
        fine = list(pool.map(lambda name: fuzz(name, seconds), names))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        one(*sys.argv[2:])
    else:
        sys.exit(main())
