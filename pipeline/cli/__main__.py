"""`python -m pipeline.cli`: the command line without its installed name."""

from pipeline.cli.main import main

main()
