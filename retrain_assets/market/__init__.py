"""Market data: bars, calendars, schemas and the files people bring."""
