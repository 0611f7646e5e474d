"""The command line: one file a verb, and the few that all verbs share."""
