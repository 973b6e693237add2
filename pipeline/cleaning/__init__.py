"""Raw dump to cleaned catalogue: tables, photos, near duplicates, report."""
