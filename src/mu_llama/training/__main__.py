"""`python -m mu_llama.training`: what `accelerate launch -m mu_llama.training` starts on every process."""

from __future__ import annotations

import argparse
import sys

from mu_llama.errors import MuLlamaError
from mu_llama.runtime import home_folder
from mu_llama.training.config_file import load_config
from mu_llama.training.run import train


def main() -> int:
    """Train as `mu-llama train` does, without its display; gives the exit code."""
    parser = argparse.ArgumentParser(prog="mu_llama.training", description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    arguments = parser.parse_args()
    try:
        train(load_config(arguments.config, arguments.set), home=home_folder())
    except MuLlamaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
