"""Clean a raw dump: tables, photos, near duplicates and a report."""
