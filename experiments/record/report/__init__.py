"""The report of one or more runs as one HTML file. May import: experiments.record, experiments.build.

runs.py reads folders, series.py and scores.py compute, charts.py and forests.py draw, the others write sections of the
page; page.py puts them into page.html, with page.css and page.js.
"""
