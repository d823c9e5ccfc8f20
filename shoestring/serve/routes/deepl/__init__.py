"""Routes of DeepL's API."""
