"""The tables of what was: states, incidents, issues, facts. Written at ingest and by housekeeping."""
