"""The words of the command line: one file for each command, or for several that are alike."""
