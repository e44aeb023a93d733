"""The monthly report: one HTML file a month, for people who were not there when it ran.

`facts.py` is what is known of a month, `sentences.py` says it in three sentences; `error_tables.py`
and `provenance.py` over `table.py` and `figures.py` over `drawing.py` show it, `page.py` puts it
together.
"""
