"""Fuzz one target for a while: ``python fuzz/run.py frames --seconds 300``.

Needs the extra ``fuzz`` (atheris). Starts from the kept inputs in ``corpus/`` and leaves them as they
are; what it finds on the way goes to ``--out``, inputs that crash first of all. Ends with 1 if there is one.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
MEMORY_MB, INPUT_BYTES, INPUT_SECONDS = 2048, 8192, 5


def main() -> int:
    """Run the fuzzer and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("target", choices=sorted(p.name for p in (HERE / "corpus").iterdir()))
    parser.add_argument("--seconds", type=int, default=60, help="how long to try (default 60)")
    parser.add_argument("--out", type=Path, help="folder for what is found; a temporary one by default")
    chosen = parser.parse_args()
    out = chosen.out or Path(tempfile.mkdtemp(prefix=f"fuzz-{chosen.target}-"))
    found = out / "inputs"
    found.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    log = fuzz(chosen.target, chosen.seconds, out, found)
    took = time.perf_counter() - began
    tried = last_number(r"stat::number_of_executed_units:\s*(\d+)", log) or last_number(r"^#(\d+)\s", log)
    coverage = last_number(r"\bcov: (\d+)", log)
    crashes = sorted(path for path in out.iterdir() if re.match(r"(crash|timeout|oom|leak)-", path.name))
    print(f"target        {chosen.target}")
    print(f"inputs        {tried:,} in {took:.0f} s, {tried / took:,.0f} a second")
    print(f"coverage      {coverage} points; {len(list(found.iterdir()))} inputs that reached something new")
    print(f"crashes       {len(crashes)}")
    for path in crashes:
        print(f"  {path}")
    if crashes:
        print("\n".join(log.splitlines()[-40:]))
    return 1 if crashes else 0


def fuzz(target: str, seconds: int, out: Path, found: Path) -> str:
    """Return what the fuzzer says, after ``seconds`` or at the first crash."""
    command = [
        sys.executable, str(HERE / "fuzz_with_atheris.py"), target, f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_MB}", f"-timeout={INPUT_SECONDS}", f"-max_len={INPUT_BYTES}",
        f"-artifact_prefix={out}/", "-print_final_stats=1", str(found), str(HERE / "corpus" / target),
    ]  # fmt: skip
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    (out / "fuzzer.log").write_text(done.stdout)
    if done.returncode and "stat::" not in done.stdout:
        raise SystemExit(f"the fuzzer did not run:\n{done.stdout[-2000:]}")
    return done.stdout


def last_number(pattern: str, text: str) -> int:
    """Return the last number in ``text`` that stands where ``pattern`` has its group; 0 if there is none."""
    numbers = re.findall(pattern, text, re.MULTILINE)
    return int(numbers[-1]) if numbers else 0


if __name__ == "__main__":
    raise SystemExit(main())
