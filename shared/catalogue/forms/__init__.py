"""The forms in which a table comes: CSV as spreadsheets and shops export it, Parquet, JSON Lines."""
