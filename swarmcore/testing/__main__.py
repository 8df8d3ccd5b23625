"""`python -m swarmcore.testing`: what is for plugin authors and for trials, on the command line."""

from __future__ import annotations

import click

from swarmcore.testing.executor_contract.command import executor


@click.group(help="Contract suites on the command line.")
def main() -> None:
    pass


main.add_command(executor)

if __name__ == "__main__":
    main(prog_name="python -m swarmcore.testing")
