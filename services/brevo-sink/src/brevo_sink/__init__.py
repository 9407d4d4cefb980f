"""Brevo commands in, Brevo told once, at the allowed rate."""
