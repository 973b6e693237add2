"""`python -m pipeline.cli`: the command line without its installed name."""

from shared.collector import collector_paused

with collector_paused():
    from pipeline.cli.main import main

main()
