"""Twilio REST in, raw events out: what webhooks missed, and what was before."""
