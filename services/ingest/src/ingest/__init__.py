"""HTTP in, raw events out: verify, redact, publish, answer."""
