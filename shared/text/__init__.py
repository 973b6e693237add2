"""Words: how texts are cleaned, turned into features and encoded, for the worker and the pipeline alike."""
