"""EC2, spoken to sparingly: payloads, calls, error classes, buckets."""
