"""Routes that the page calls: its files, and the parts that programs do not need."""
