"""The referee: scores of a result, by code that no method shares."""
