"""`python -m mu_llama.training`: what `accelerate launch -m mu_llama.training` starts on every process."""

from __future__ import annotations

import argparse
import logging
import sys

from mu_llama.cache_folder import home_folder
from mu_llama.errors import MuLlamaError
from mu_llama.training.callbacks import LineLogger
from mu_llama.training.config_file import load_config
from mu_llama.training.session import prepare_only, train


def main() -> int:
    """Train as `mu-llama train` does, with lines instead of a display; gives the exit code."""
    parser = argparse.ArgumentParser(prog="mu_llama.training", description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    parser.add_argument("--prepare", action="store_true", help="only encode all tracks, and stop")
    parser.add_argument("--skip-missing", action="store_true", help="drop and count examples without their audio")
    arguments = parser.parse_args()
    more = ["data.skip_missing=true"] if arguments.skip_missing else []
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        config = load_config(arguments.config, [*arguments.set, *more])
        if arguments.prepare:
            sys.stderr.write(f"{prepare_only(config, home=home_folder())}\n")
        else:
            train(config, home=home_folder(), callback=LineLogger())
    except (MuLlamaError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
