"""The HTML report of a study and its figures."""
