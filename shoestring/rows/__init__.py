"""Rows of data as people have it: jsonl, JSON arrays, csv, parquet, arrow; in files, folders and hub sets."""
