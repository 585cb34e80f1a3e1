"""`python -m dsr_fit`."""

from dsr_fit.cli.main import command

command()
