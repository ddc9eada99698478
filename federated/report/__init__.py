"""Pages for people, as pure functions of values: of a run, and of a comparison of runs.

A page is one HTML file that loads nothing. What comes from sites or data is text in it, and never
markup. Files are read in ``tasks/report.py``.
"""
