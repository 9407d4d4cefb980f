"""Raw events in, Brevo commands out, by YAML."""
